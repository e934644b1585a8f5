package mirror

import (
	"errors"
	"sync"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// respelled are what the target has under another spelling than the source: its file system takes the two names for one. What stands there
// belongs to an object that the source still has, and is not deleted under its old name.
type respelled struct {
	mu    sync.Mutex
	paths map[string]bool // of files and folders at the target
	full  bool
}

// mostRespelled bounds what is remembered. With more nothing is deleted.
const mostRespelled = 100_000

// note remembers why an object was refused, if that is a spelling.
func (r *respelled) note(err error) {
	var other *bucket.OtherSpelling
	if !errors.As(err, &other) {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.paths == nil {
		r.paths = map[string]bool{}
	}
	if len(r.paths) < mostRespelled {
		r.paths[other.As] = true
	} else {
		r.full = true
	}
}

// has says whether a key is one of those, or lies in a folder that is.
func (r *respelled) has(key string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full {
		return true
	}
	if len(r.paths) == 0 {
		return false
	}
	for at := key; at != ""; at = folderOf(at) {
		if r.paths[at] {
			return true
		}
	}
	return false
}

// keepRespelled leaves out what would be deleted although the source has it under another spelling.
func (r *run) keepRespelled(key string) bool {
	if !r.respelled.has(key) {
		return false
	}
	r.tally.leftOut(key, fault.New(fault.KeyRefused, r.to.bucket.Properties().URL+"/"+key,
		"the source has it under another spelling, which the target's file system takes for the same name: it is not deleted").
		WithMend("Rename it at the target as the source has it now, or delete it there by hand."))
	return true
}
