package lake

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
)

// The version hint of a table of the file catalog is a request of its own, and readers that look for later versions
// need it seldom. So it is written once in Options.HintEvery, and for the last commit of a while by WriteHints.

// versionHint is what version-hint.text of a table says.
type versionHint struct {
	mu     sync.Mutex   // held while it is written: the later one of two is the one that stays
	number atomic.Int64 // 0 while it is not known
	at     time.Time
}

// mostUnhinted is how many versions a hint may lag behind: that many are there after it at any time, and a reader that
// has read the hint finds its version, of which the last twenty stay.
const mostUnhinted = 8

// hintsAtOnce is how many hints are written or looked at at a time.
const hintsAtOnce = 8

func (c *fileCatalog) hintOf(folder string) (h *versionHint, last int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hints[folder] == nil {
		c.hints[folder] = &versionHint{}
	}
	return c.hints[folder], int64(c.last[folder].number)
}

// writeHint brings the hint to the last version, if it is time or in any case, and says whether it is there then. The
// version is committed: a hint that could not be written only costs the next reader a look.
func (c *fileCatalog) writeHint(ctx context.Context, folder string, now bool) bool {
	h, _ := c.hintOf(folder)
	h.mu.Lock()
	defer h.mu.Unlock()
	_, last := c.hintOf(folder) // by now
	said := h.number.Load()
	if last <= said {
		return true
	}
	if !now && said > 0 && last < said+mostUnhinted && time.Since(h.at) < c.lake.HintEvery {
		return false
	}
	if err := c.putHint(ctx, folder, last); err != nil {
		return false
	}
	h.number.Store(last)
	h.at = time.Now()
	return true
}

func (c *fileCatalog) putHint(ctx context.Context, folder string, version int64) error {
	_, err := bucket.WriteAll(ctx, c.lake.Bucket, hintKey(folder), []byte(strconv.FormatInt(version, 10)), bucket.WriteOptions{ContentType: "text/plain", Lazy: true})
	if err != nil {
		c.lake.Log.Warn("the version hint of a table could not be written", "table", folder, "error", err)
	}
	return err
}

// WriteHints brings the version hints to the last commits of this process: those whose time has come, or all. It says
// whether all are there.
func (l *Lake) WriteHints(ctx context.Context, all bool) bool {
	c, ours := l.catalog.(*fileCatalog)
	if !ours {
		return true
	}
	return c.eachHint(c.folders(), func(folder string) bool { return c.writeHint(ctx, folder, all) })
}

// HintsBehind says whether a commit of this process has left a version hint behind.
func (l *Lake) HintsBehind() bool {
	c, ours := l.catalog.(*fileCatalog)
	if !ours {
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for folder, v := range c.last {
		if h := c.hints[folder]; h != nil && h.number.Load() < int64(v.number) {
			return true
		}
	}
	return false
}

func (c *fileCatalog) folders() (folders []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for folder := range c.last {
		folders = append(folders, folder)
	}
	return folders
}

func (c *fileCatalog) eachHint(folders []string, do func(string) bool) bool {
	done := make([]bool, len(folders))
	var g errgroup.Group
	g.SetLimit(hintsAtOnce)
	for i, folder := range folders {
		g.Go(func() error { done[i] = do(folder); return nil })
	}
	_ = g.Wait() // none has an error
	for _, there := range done {
		if !there {
			return false
		}
	}
	return true
}

// FindHints brings the version hints of tables to their newest version, which a process that died may not have done. It
// says whether all are there.
func (l *Lake) FindHints(ctx context.Context, of []change.Table) bool {
	c, ours := l.catalog.(*fileCatalog)
	if !ours {
		return true
	}
	var folders []string
	for i := range of {
		for _, kind := range []string{kindCurrent, kindHistory} {
			folders = append(folders, c.folder(l.identifier(&of[i], l.suffix(kind))))
		}
	}
	return c.eachHint(folders, func(folder string) bool { return c.findHint(ctx, folder) })
}

func (c *fileCatalog) findHint(ctx context.Context, folder string) bool {
	h, last := c.hintOf(folder)
	if last > 0 { // it is open, and its hint goes on with its commits
		return c.writeHint(ctx, folder, true)
	}
	h.mu.Lock() // a commit of a table that is opened meanwhile writes its hint after this one
	defer h.mu.Unlock()
	newest, said, err := c.newest(ctx, folder, false)
	if err != nil {
		c.lake.Log.Warn("the version hint of a table could not be looked at", "table", folder, "error", err)
		return false
	}
	return newest <= said || c.putHint(ctx, folder, int64(newest)) == nil
}

// heard notes what the hint said when a version was loaded.
func (c *fileCatalog) heard(folder string, said, loaded int) {
	h, _ := c.hintOf(folder)
	h.mu.Lock()
	defer h.mu.Unlock()
	if said > loaded { // it leads nowhere
		said = 0
	}
	h.number.Store(int64(said))
}
