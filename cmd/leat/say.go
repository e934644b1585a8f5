package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/leatdata/leat/internal/fault"
)

// All that a person or a program reads of leat leaves through this file: names, keys and messages come from data, and a terminal obeys some
// characters. A format is ours and stays; what is put into it is made printable.

// shown is fmt.Sprintf with printable arguments.
func shown(format string, args ...any) string {
	for i, arg := range args {
		args[i] = printable(arg)
	}
	return fmt.Sprintf(format, args...)
}

// say writes text.
func say(w io.Writer, format string, args ...any) { fmt.Fprint(w, shown(format, args...)) }

// printable is an argument as it can be shown. Numbers stay what they are.
func printable(arg any) any {
	switch v := arg.(type) {
	case error:
		return fault.Printable(v.Error())
	case fmt.Stringer:
		return fault.Printable(v.String())
	}
	switch v := reflect.ValueOf(arg); v.Kind() {
	case reflect.String:
		return fault.Printable(v.String())
	case reflect.Slice, reflect.Map, reflect.Struct, reflect.Pointer, reflect.Array:
		return fault.Printable(fmt.Sprint(arg))
	}
	return arg
}

// sayMend writes what can be done, so many columns in.
func sayMend(w io.Writer, columns int, mend string) {
	indent := strings.Repeat(" ", columns)
	fmt.Fprintf(w, "%smend: %s\n", indent, below(indent+"      ", fault.Pasted(mend)))
}

// below puts a text of several lines, such as SQL to run, under a line of ours, so that none of it can be taken for one.
func below(indent, lines string) string {
	all := strings.Split(strings.TrimSpace(lines), "\n")
	for i := range all {
		all[i] = fault.Printable(all[i])
	}
	return strings.Join(all, "\n"+indent)
}

// sayJSON writes an object a line.
func sayJSON(w io.Writer, v any) error {
	data, err := json.Marshal(v)
	return writeJSON(w, data, err)
}

// sayJSONIndented writes an object for people.
func sayJSONIndented(w io.Writer, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	return writeJSON(w, data, err)
}

func writeJSON(w io.Writer, data []byte, err error) error {
	if err != nil {
		return fault.Wrap(err, fault.Internal, "", "the output cannot be written as JSON")
	}
	_, err = w.Write(append(fault.PrintableJSON(data), '\n'))
	return err
}

// printableLog is where log lines in JSON go, which encoding/json leaves with characters that a terminal obeys.
type printableLog struct{ out io.Writer }

func (l printableLog) Write(p []byte) (int, error) {
	line := bytes.TrimSuffix(p, []byte("\n"))
	if _, err := l.out.Write(append(fault.PrintableJSON(line), '\n')); err != nil {
		return 0, err
	}
	return len(p), nil
}

// printableLines is where libraries write that have no log of ours.
type printableLines struct{ out io.Writer }

func (l printableLines) Write(p []byte) (int, error) {
	if _, err := fmt.Fprintf(l.out, "leat: %s\n", fault.Printable(strings.TrimSuffix(string(p), "\n"))); err != nil {
		return 0, err
	}
	return len(p), nil
}
