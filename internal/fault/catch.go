package fault

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
)

// panicked is the cause of an error that was made of a panic.
type panicked struct{ value any }

func (p panicked) Error() string { return fmt.Sprint(p.value) }

// Catch makes an error of a panic, so that what cannot be worked on fails alone: a table, an object, a file. It is deferred at the
// boundary of each of them, and in each goroutine below it. The stack goes to the debug log; log may be nil.
func Catch(err *error, log *slog.Logger, where string) {
	p := recover()
	if p == nil {
		return
	}
	if log != nil {
		log.Debug("leat itself failed", "where", where, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	}
	*err = New(Internal, where, "leat itself failed").Because(panicked{p})
}

// Catching is work for a goroutine, whose panic is its error: a panic ends the process where no function of that goroutine recovers.
func Catching(log *slog.Logger, where string, work func() error) func() error {
	return func() (err error) {
		defer Catch(&err, log, where)
		return work()
	}
}

// Panicked says whether an error was made of a panic. Code internal alone does not: errors that nobody has judged have it too.
func Panicked(err error) bool {
	var p panicked
	return errors.As(err, &p)
}
