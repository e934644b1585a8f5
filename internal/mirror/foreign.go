package mirror

import (
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/fault"
)

// foreign are the folders of the target that another mirror or pipeline keeps, as its state there tells, and how many objects
// in them the source does not have. A mirror of a place above them does not delete those.
type foreign struct {
	folders []string // with a slash at the end
	objects int64
}

// noteForeign notes the folder in which the target has state of another mirror or pipeline, and the source has none.
func (r *run) noteForeign(p pair) {
	if p.from != nil || strings.HasSuffix(p.key(), ".mark") {
		return
	}
	segments := strings.Split(p.key(), "/")
	at := slices.IndexFunc(segments, func(s string) bool { return s == ".leat" || s == "_leat" })
	if at <= 0 {
		return
	}
	if folder := strings.Join(segments[:at], "/") + "/"; !slices.Contains(r.foreign.folders, folder) {
		r.foreign.folders = append(r.foreign.folders, folder)
	}
}

func (r *run) isForeign(key string) bool {
	return slices.ContainsFunc(r.foreign.folders, func(folder string) bool { return strings.HasPrefix(key, folder) })
}

// leaveForeign leaves out what would be deleted in folders that others keep. It does not count as lost by the source.
func (r *run) leaveForeign() error {
	if len(r.foreign.folders) == 0 {
		return nil
	}
	for _, q := range r.later.deletions.all() {
		for e, err := range q.all() {
			if err != nil {
				return err
			}
			if r.isForeign(e.Key) {
				r.foreign.objects++
				r.tally.leftOut(e.Key, fault.New(fault.ObjectForeign, r.to.bucket.Properties().URL, "%s lies in a folder that another mirror or pipeline keeps: it is not deleted", e.Key))
			}
		}
	}
	r.listed.lost -= r.foreign.objects
	r.listed.had -= r.foreign.objects
	return nil
}
