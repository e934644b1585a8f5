package fault

import (
	"fmt"
	"log/slog"
	"runtime/debug"
)

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
	*err = New(Internal, where, "leat itself failed: %v", p)
}
