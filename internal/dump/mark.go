package dump

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// marks is where running dumps say that they run. The folder is empty when none does and none was killed.
const marks = ".leat/running/"

// mark is the object that says a dump is running. It is written again every quarter of
// Liveness; one that is older than Liveness, by the store's own clock, was left by a process that died.
type mark struct {
	ID      string    `json:"id"`
	Folder  string    `json:"folder"`
	Layout  Layout    `json:"layout"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started time.Time `json:"started"`
	// Keys are the objects that a dump of LayoutDate will write. It shares its folder with others, so only
	// these may be swept.
	Keys []string `json:"keys,omitempty"`
}

func (r *run) markKey() string { return marks + r.mark.ID + "-" + r.nonce + ".json" }

func (r *run) writeMark(ctx context.Context) (bucket.Object, error) {
	r.markMu.Lock()
	defer r.markMu.Unlock()
	data, err := json.Marshal(r.mark)
	if err != nil {
		return bucket.Object{}, fault.Wrap(err, fault.Internal, r.markKey(), "cannot be written as JSON")
	}
	return bucket.WriteAll(ctx, r.bucket, r.markKey(), data, bucket.WriteOptions{ContentType: "application/json"})
}

// begin writes the mark and keeps it fresh until the returned func is called, which removes it.
func (r *run) begin(ctx context.Context) (end func(), err error) {
	host, _ := os.Hostname() // for people who look at the mark; nothing depends on it
	r.mark = mark{ID: r.manifest.ID, Folder: r.manifest.Folder, Layout: r.opts.Layout, Host: host, PID: os.Getpid(), Started: r.manifest.Started}
	if _, err = r.writeMark(ctx); err != nil {
		return nil, err
	}
	obj, err := r.bucket.Stat(ctx, r.markKey())
	if err != nil {
		return nil, err
	}
	r.storeNow = obj.Modified
	renew, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(max(r.opts.Liveness/4, time.Second))
		defer tick.Stop()
		for {
			select {
			case <-renew.Done():
				return
			case <-tick.C:
				if _, err := r.writeMark(renew); err != nil && renew.Err() == nil {
					r.opts.Log.Warn("cannot renew the mark of this dump", "key", r.markKey(), "error", err)
				}
			}
		}
	})
	return func() {
		cancel()
		done.Wait()
		if r.keepMark {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		if err := r.bucket.Delete(ctx, r.markKey()); err != nil {
			r.opts.Log.Warn("cannot remove the mark of this dump; the next one will", "key", r.markKey(), "error", err)
		}
	}, nil
}

// sweep removes what dumps that died have left: their objects, unless a manifest names them, and
// uploads that were begun and not finished (Invariant 4).
func (r *run) sweep(ctx context.Context) error {
	var dead []bucket.Object
	living := map[string]bool{r.mark.Folder: true}
	for obj, err := range r.bucket.List(ctx, marks) {
		if err != nil {
			return err
		}
		switch {
		case obj.Key == r.markKey():
		case r.storeNow.Sub(obj.Modified) > r.opts.Liveness:
			dead = append(dead, obj)
		default:
			if m, err := r.readMark(ctx, obj.Key); err == nil {
				living[m.Folder] = true
			}
		}
	}
	for _, obj := range dead {
		if err := r.sweepOne(ctx, obj.Key, living); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) readMark(ctx context.Context, key string) (m mark, err error) {
	data, err := bucket.ReadAll(ctx, r.bucket, key, 64<<20)
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil || m.Folder == "" || strings.Contains(m.Folder, "/") || strings.HasPrefix(m.Folder, ".") {
		return m, fault.New(fault.BucketFailed, key, "is not the mark of a dump").WithMend("Look at the object; if it is no use, delete it.")
	}
	return m, nil
}

func (r *run) sweepOne(ctx context.Context, key string, living map[string]bool) error {
	m, err := r.readMark(ctx, key)
	if err != nil {
		r.opts.Log.Warn("left alone", "key", key, "error", err)
		return nil //nolint:nilerr // somebody else's object is no reason not to dump
	}
	finished, err := r.namedBy(ctx, m)
	if err != nil {
		return err
	}
	var debris []string
	if m.Layout == LayoutDate {
		debris = slices.DeleteFunc(m.Keys, func(k string) bool { return finished[k] || !strings.HasPrefix(k, m.Folder+"/") })
		if living[m.Folder] { // today's dump is about to write these very keys: leave them to it
			debris = nil
		}
	} else if len(finished) == 0 && !living[m.Folder] {
		for obj, err := range r.bucket.List(ctx, m.Folder+"/") {
			if err != nil {
				return err
			}
			debris = append(debris, obj.Key)
		}
	}
	aborted, err := r.bucket.Sweep(ctx, m.Folder+"/", r.storeNow)
	if err != nil {
		return err
	}
	r.opts.Log.Info("swept what a dump that died had left", "dump", m.ID, "host", m.Host, "objects", len(debris), "uploads", aborted)
	return r.bucket.Delete(ctx, append(debris, key)...)
}

// namedBy is the set of keys that the folder's manifest names; empty without one.
func (r *run) namedBy(ctx context.Context, m mark) (map[string]bool, error) {
	man, err := ReadManifest(ctx, r.bucket, m.Folder)
	if fault.Is(err, fault.ObjectMissing) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	named := map[string]bool{}
	for _, t := range man.Tables {
		for _, f := range t.Files {
			named[f.Key] = true
		}
	}
	return named, nil
}

// prune deletes all but the newest keep dumps: the manifest first, so that what is half deleted is no dump.
func (r *run) prune(ctx context.Context) error {
	if r.opts.Keep <= 0 {
		return nil
	}
	var folders []string
	for obj, err := range r.bucket.List(ctx, "") {
		if err != nil {
			return err
		}
		if folder, ok := strings.CutSuffix(obj.Key, "/"+ManifestName); ok && !strings.Contains(folder, "/") {
			folders = append(folders, folder)
		}
	}
	slices.Sort(folders) // both layouts begin with the date: the order of names is the order of time
	for len(folders) > r.opts.Keep {
		if err := r.deleteDump(ctx, folders[0]); err != nil {
			return err
		}
		folders = folders[1:]
	}
	return nil
}

func (r *run) deleteDump(ctx context.Context, folder string) error {
	m, err := ReadManifest(ctx, r.bucket, folder)
	if err != nil {
		r.opts.Log.Warn("not pruned: its manifest cannot be read", "folder", folder, "error", err)
		return nil //nolint:nilerr // a foreign folder is left alone
	}
	if m.Folder != folder {
		r.opts.Log.Warn("not pruned: its manifest belongs to another folder", "folder", folder, "manifest", m.Folder)
		return nil
	}
	if err := r.bucket.Delete(ctx, folder+"/"+ManifestName); err != nil {
		return err
	}
	var keys []string
	for _, t := range m.Tables {
		for _, f := range t.Files {
			if strings.HasPrefix(f.Key, folder+"/") {
				keys = append(keys, f.Key)
			}
		}
	}
	r.opts.Log.Info("pruned an old dump", "folder", folder, "objects", len(keys)+1)
	return r.bucket.Delete(ctx, keys...)
}
