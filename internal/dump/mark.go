package dump

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"regexp"
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

func (r *run) writeMark(ctx context.Context) error {
	r.markMu.Lock()
	defer r.markMu.Unlock()
	data, err := json.Marshal(r.mark)
	if err != nil {
		return fault.Wrap(err, fault.Internal, r.markKey(), "cannot be written as JSON")
	}
	_, err = bucket.WriteAll(ctx, r.bucket, r.markKey(), data, bucket.WriteOptions{ContentType: "application/json", Lazy: true})
	return err
}

// checkMark fails when our mark is gone: whoever removed it took us for dead and swept our objects, so a
// manifest would lie. A mark that is gone is never written again, or nobody would notice.
func (r *run) checkMark(ctx context.Context) error {
	_, err := r.bucket.Stat(ctx, r.markKey())
	if fault.Is(err, fault.ObjectMissing) {
		return fault.Wrap(err, fault.BucketFailed, r.markKey(), "another dump took this one for dead and swept it")
	}
	return err
}

// begin claims a folder and keeps the mark fresh until the returned func is called, which removes it.
func (r *run) begin(ctx context.Context) (end func(), err error) {
	if err := r.claim(ctx); err != nil {
		return nil, err
	}
	renew, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() { r.renewMark(renew) })
	return func() {
		cancel()
		done.Wait()
		if !r.keepMark {
			r.removeMark(ctx)
		}
	}, nil
}

func (r *run) renewMark(ctx context.Context) {
	tick := time.NewTicker(max(r.opts.Liveness/4, time.Second))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := r.checkMark(ctx)
		if err == nil {
			err = r.writeMark(ctx)
		}
		if err != nil && ctx.Err() == nil {
			r.opts.Log.Warn("cannot renew the mark of this dump", "key", r.markKey(), "error", err)
		}
	}
}

func (r *run) removeMark(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if err := r.bucket.Delete(ctx, r.markKey()); err != nil {
		r.opts.Log.Warn("cannot remove the mark of this dump; the next one will", "key", r.markKey(), "error", err)
	}
}

// claims is how many folders a dump of LayoutRun tries, a second apart: one that is never free means a clock that stands.
const claims = 10

// claim writes the mark and then looks for another living one of the same folder. Who finds one takes its own
// back and comes again after a random while: so of several that come at once none or one goes on, and soon one does (Invariant 3).
// In LayoutRun the next second has a folder of its own; in LayoutDate the other dump must end first.
func (r *run) claim(ctx context.Context) error {
	host, _ := os.Hostname() // for people who look at the mark; nothing depends on it
	for attempt := 1; ; attempt++ {
		r.name(r.opts.Now().UTC())
		r.mark = mark{ID: r.manifest.ID, Folder: r.manifest.Folder, Layout: r.opts.Layout, Host: host, PID: os.Getpid(), Started: r.manifest.Started}
		if err := r.writeMark(ctx); err != nil {
			return err
		}
		rival, err := r.rival(ctx)
		if err == nil && rival == "" {
			return nil
		}
		r.removeMark(ctx)
		switch {
		case err != nil:
			return err
		case attempt == claims && r.opts.Layout == LayoutRun:
			return fault.New(fault.ObjectExists, rival, "another dump has this folder").WithMend("Start again.")
		case attempt == 1 && r.opts.Layout == LayoutDate:
			r.opts.Log.Warn("waiting for the dump that writes the same folder to end, or for its mark to grow old", "mark", rival, "old", r.opts.Liveness)
		}
		if err := pause(ctx, time.Second+rand.N(time.Second)); err != nil {
			return err
		}
	}
}

// rival names what of somebody else stands in the way of our folder; "" is nothing.
func (r *run) rival(ctx context.Context) (string, error) {
	own, err := r.bucket.Stat(ctx, r.markKey())
	if err != nil {
		return "", err
	}
	r.storeNow = own.Modified
	for obj, err := range r.bucket.List(ctx, marks) {
		if err != nil {
			return "", err
		}
		if obj.Key == r.markKey() || r.stale(obj) {
			continue
		}
		m, err := r.readMark(ctx, obj.Key)
		if err != nil && !noMark(err) { // it may be a rival's
			return "", err
		}
		if err == nil && m.Folder == r.mark.Folder {
			return obj.Key, nil
		}
	}
	if r.opts.Layout == LayoutDate {
		return "", nil
	}
	for obj, err := range r.bucket.List(ctx, r.mark.Folder+"/") {
		return obj.Key, err
	}
	return "", nil
}

// stale says whether a mark was left by a process that died.
func (r *run) stale(obj bucket.Object) bool { return r.storeNow.Sub(obj.Modified) > r.opts.Liveness }

// sweep removes what dumps that died have left: their objects, unless a manifest names them, and
// uploads that were begun and not finished (Invariant 4). What died in our own folder waits for sweepOwn.
// A sweep that fails is no reason not to dump: the mark stays, and the next dump tries again.
func (r *run) sweep(ctx context.Context) error {
	var dead []string
	living := map[string]bool{}
	for obj, err := range r.bucket.List(ctx, marks) {
		if err != nil {
			return err
		}
		switch m, err := r.readMark(ctx, obj.Key); {
		case obj.Key == r.markKey(), fault.Is(err, fault.ObjectMissing): // its dump has just ended
		case noMark(err):
			r.opts.Log.Warn("left alone", "key", obj.Key, "error", err)
		case err != nil: // it may be of one that lives
			return err
		case !r.stale(obj):
			living[m.Folder] = true
		case m.Folder == r.mark.Folder:
			r.deadBefore = append(r.deadBefore, obj.Key)
		default:
			dead = append(dead, obj.Key)
		}
	}
	for _, key := range dead {
		r.sweepOne(ctx, key, living)
	}
	return nil
}

// sweepOwn removes what died in our own folder, now that our manifest says what is ours there.
func (r *run) sweepOwn(ctx context.Context) {
	for _, key := range r.deadBefore {
		r.sweepOne(ctx, key, nil)
	}
}

func (r *run) readMark(ctx context.Context, key string) (m mark, err error) {
	data, err := bucket.ReadAll(ctx, r.bucket, key, 64<<20)
	if err != nil {
		return m, err
	}
	if err := bucket.DecodeJSON(data, &m); err != nil || !m.Layout.names(m.Folder) {
		return m, fault.New(fault.BucketFailed, key, "is not the mark of a dump").WithMend("Look at the object; if it is no use, delete it.")
	}
	return m, nil
}

// noMark says whether an error of readMark tells that there is no mark of a dump, and not that it could not be read.
func noMark(err error) bool {
	return fault.Is(err, fault.ObjectMissing) || fault.Is(err, fault.BucketFailed)
}

func (r *run) sweepOne(ctx context.Context, key string, living map[string]bool) {
	m, err := r.readMark(ctx, key)
	if err == nil && living[m.Folder] {
		return // whoever lives there will not mind; a later dump sweeps
	}
	var debris []string
	if err == nil {
		debris, err = r.debris(ctx, m)
	}
	var aborted int
	if err == nil {
		aborted, err = r.bucket.Sweep(ctx, m.Folder+"/", r.storeNow)
	}
	if err == nil {
		// Of the mark itself too: on some kinds a write that was cut leaves something.
		_, err = r.bucket.Sweep(ctx, key, r.storeNow)
	}
	if err == nil {
		err = r.bucket.Delete(ctx, debris...)
	}
	if err == nil {
		err = r.bucket.Delete(ctx, key) // last: it is what the next dump sweeps by
	}
	if err != nil {
		r.opts.Log.Warn("cannot sweep what a dump that died has left; the next dump will try", "key", key, "error", err)
		return
	}
	r.opts.Log.Info("swept what a dump that died had left", "dump", m.ID, "host", m.Host, "objects", len(debris), "uploads", aborted)
}

// debris lists what a dead dump has left and no manifest names. Only keys of the shape that dumps write are
// taken, so that what somebody else put there stays.
func (r *run) debris(ctx context.Context, m mark) (debris []string, err error) {
	finished, err := r.namedBy(ctx, m)
	if err != nil {
		return nil, err
	}
	if m.Layout == LayoutDate {
		return slices.DeleteFunc(m.Keys, func(k string) bool { return finished[k] || !strings.HasPrefix(k, m.Folder+"/") }), nil
	}
	if finished != nil {
		return nil, nil
	}
	return r.ownObjects(ctx, m.Folder)
}

// ownObjects lists the files of a LayoutRun folder.
func (r *run) ownObjects(ctx context.Context, folder string) (keys []string, err error) {
	for obj, err := range r.bucket.List(ctx, folder+"/") {
		if err != nil {
			return nil, err
		}
		if fileKey.MatchString(strings.TrimPrefix(obj.Key, folder+"/")) {
			keys = append(keys, obj.Key)
		}
	}
	return keys, nil
}

// fileKey is what tableWork.key makes in LayoutRun, below the folder.
var fileKey = regexp.MustCompile(`^[^/]+/\d{5,}-\d{2,}\.[a-z.]+$`)

// namedBy is the set of keys that the folder's manifest names; nil without one.
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

// prune deletes all but the newest dumps, Keep of them, ours included: the manifest first, so that what is half
// deleted is no dump. Only manifests of ours count: a folder of somebody else's is neither kept nor deleted.
func (r *run) prune(ctx context.Context) error {
	if r.opts.Keep <= 0 {
		return nil
	}
	var folders []string
	for obj, err := range r.bucket.List(ctx, "") {
		if err != nil {
			return err
		}
		folder, ok := strings.CutSuffix(obj.Key, "/"+ManifestName)
		if ok && folder != r.manifest.Folder && (LayoutRun.names(folder) || LayoutDate.names(folder)) {
			folders = append(folders, folder)
		}
	}
	slices.Sort(folders) // both layouts begin with the date: the order of names is the order of time
	var old []*Manifest
	kept := 1 // ours, whatever the clock says
	for _, folder := range slices.Backward(folders) {
		m, err := ReadManifest(ctx, r.bucket, folder)
		if err == nil && m.Folder != folder {
			err = fault.New(fault.BucketFailed, folder+"/"+ManifestName, "belongs to another folder: %q", m.Folder)
		}
		if err != nil {
			r.opts.Log.Warn("neither counted nor pruned", "folder", folder, "error", err)
			continue
		}
		if kept++; kept > r.opts.Keep {
			old = append(old, m)
		}
	}
	for _, m := range slices.Backward(old) {
		if err := r.deleteDump(ctx, m); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) deleteDump(ctx context.Context, m *Manifest) error {
	if err := r.bucket.Delete(ctx, m.Folder+"/"+ManifestName); err != nil {
		return err
	}
	var keys []string
	for _, t := range m.Tables {
		for _, f := range t.Files {
			if strings.HasPrefix(f.Key, m.Folder+"/") {
				keys = append(keys, f.Key)
			}
		}
	}
	r.opts.Log.Info("pruned an old dump", "folder", m.Folder, "objects", len(keys)+1)
	return r.bucket.Delete(ctx, keys...)
}
