package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Fault is an error that carries a decision.
type Fault struct {
	Code  Code   // stable name, registered in Codes
	What  string // one sentence: what happened
	Where string // the thing it happened to: a table, a key, a path in leat.yaml; may be empty
	Mend  string // what the user can do; empty takes the code's own mend
	Err   error  // the cause; may be nil
}

// New makes a Fault from a code, the thing and a sentence in the manner of fmt.Sprintf.
func New(code Code, where, format string, args ...any) *Fault {
	return &Fault{Code: code, Where: where, What: fmt.Sprintf(format, args...)}
}

// Wrap makes a Fault around a cause. A nil cause gives a nil error, so that
// `return fault.Wrap(err, …)` is safe.
func Wrap(err error, code Code, where, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return &Fault{Code: code, Where: where, What: fmt.Sprintf(format, args...), Err: err}
}

// WithMend replaces the code's general mend by one that fits this very case.
func (f *Fault) WithMend(format string, args ...any) *Fault {
	f.Mend = Pasted(fmt.Sprintf(format, args...))
	return f
}

// Because sets the cause.
func (f *Fault) Because(err error) *Fault {
	f.Err = err
	return f
}

// Error is one line: where, what, cause. The mend is not part of it: main prints it below.
func (f *Fault) Error() string {
	var b strings.Builder
	if f.Where != "" {
		b.WriteString(f.Where)
		b.WriteString(": ")
	}
	b.WriteString(f.What)
	if f.Err != nil {
		b.WriteString(": ")
		b.WriteString(f.Err.Error())
	}
	return b.String()
}

func (f *Fault) Unwrap() error { return f.Err }

// HowToMend returns the mend of this fault, or its code's general one.
func (f *Fault) HowToMend() string {
	if f.Mend != "" {
		return Pasted(f.Mend)
	}
	return Codes[f.Code].Mend
}

// Retryable says whether the same attempt can succeed later without anybody's help.
func (f *Fault) Retryable() bool { return Codes[f.Code].Retry }

// Of returns the outermost Fault in err's chain, or nil.
func Of(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return nil
}

// Is says whether err's outermost Fault has the code. What lies deeper is the cause of that decision and not a decision about err:
// a store that cannot be reached because an object was in the way says nothing about an object.
func Is(err error, code Code) bool {
	f := Of(err)
	return f != nil && f.Code == code
}

// Retryable says whether the outermost Fault in err's chain can heal by itself. An error that was never judged is not retried; neither is
// the end of a context that nothing has judged.
func Retryable(err error) bool {
	f := Of(err)
	return f != nil && f.Retryable()
}

// Mended gives err's outermost Fault a mend that fits this very case.
func Mended(err error, format string, args ...any) error {
	if f := Of(err); f != nil {
		return f.WithMend(format, args...)
	}
	return err
}
