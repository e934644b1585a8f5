package mirror

import (
	"context"
	"iter"
	"log/slog"
	"path"
	"strings"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// pair is a key with what each side has of it; nil where it has nothing.
type pair struct{ from, to *bucket.Object }

func (p pair) key() string {
	if p.from != nil {
		return p.from.Key
	}
	return p.to.Key
}

// listedAhead is how many objects of a listing wait for the other one: a page.
const listedAhead = 1000

// listed is an object, or the end of a listing.
type listed struct {
	o   bucket.Object
	err error
	end bool
}

// ahead lists in a goroutine, so that the two sides list at the same time. A listing that is not in order ends with an error: what is
// merged from it would be wrong. Objects whose keys a server cannot say do not take part: they go to untold.
func (r *run) ahead(
	ctx context.Context, b bucket.Bucket, untold func(bucket.Object), stray func(bucket.Stray),
) <-chan []listed {
	out := make(chan []listed, 2)
	go func() {
		defer close(out)
		l := &lister{ctx: ctx, bucket: b, out: out, batch: make([]listed, 0, listedAhead)}
		if err := l.all(r.o.Log, untold, stray); err != nil {
			l.send(listed{err: err})
		}
	}()
	return out
}

// lister sends what a bucket lists, many at once.
type lister struct {
	ctx    context.Context
	bucket bucket.Bucket
	out    chan<- []listed
	batch  []listed
	last   string // key
}

// all sends the whole listing. Its error is that of a panic.
func (l *lister) all(log *slog.Logger, untold func(bucket.Object), stray func(bucket.Stray)) (panicked error) {
	url := l.bucket.Properties().URL
	defer fault.Catch(&panicked, log, url)
	for o, err := range bucket.ListAll(l.ctx, l.bucket, "", stray) {
		if err == nil && o.Untold {
			untold(o)
			continue
		}
		if err == nil && o.Key <= l.last && l.last != "" {
			err = fault.New(fault.BucketFailed, url, "the listing is not in order: %q comes behind %q", o.Key, l.last)
		}
		l.last = o.Key
		if !l.send(listed{o: o, err: err}) {
			return nil
		}
	}
	l.send(listed{end: true})
	return nil
}

// send returns false when nothing more is wanted.
func (l *lister) send(one listed) bool {
	l.batch = append(l.batch, one)
	if len(l.batch) < listedAhead && one.err == nil && !one.end {
		return true
	}
	select {
	case l.out <- l.batch:
	case <-l.ctx.Done():
		return false
	}
	l.batch = make([]listed, 0, listedAhead)
	return one.err == nil && !one.end
}

// cursor reads a listing one by one.
type cursor struct {
	in    <-chan []listed
	batch []listed
	now   *bucket.Object // nil at the end
}

func (c *cursor) next(ctx context.Context) error {
	if len(c.batch) == 0 {
		batch, ok := <-c.in
		if !ok { // the sender was stopped
			return fault.Wrap(context.Cause(ctx), fault.Interrupted, "", "the listing was ended")
		}
		c.batch = batch
	}
	l := &c.batch[0]
	c.batch = c.batch[1:]
	switch {
	case l.err != nil:
		return l.err
	case l.end:
		c.now = nil // nobody reads behind the end
		return nil
	}
	c.now = &l.o
	return nil
}

// pairs merges two listings. After an error the sequence ends. stray is told of what lies at the source and is no object; at the target it
// is in nobody's way.
func (r *run) pairs(ctx context.Context) iter.Seq2[pair, error] {
	return func(yield func(pair, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		a := &cursor{in: r.ahead(ctx, r.from.bucket, r.untold, r.stray)}
		b := &cursor{in: r.ahead(ctx, r.to.bucket, func(bucket.Object) {}, func(bucket.Stray) {})}
		step := func(c *cursor) bool {
			if err := c.next(ctx); err != nil {
				yield(pair{}, err)
				return false
			}
			return true
		}
		if !step(a) || !step(b) {
			return
		}
		for a.now != nil || b.now != nil {
			var p pair
			order := 0
			switch {
			case a.now == nil:
				order = 1
			case b.now == nil:
				order = -1
			default:
				order = strings.Compare(a.now.Key, b.now.Key)
			}
			if order <= 0 {
				p.from = a.now
			}
			if order >= 0 {
				p.to = b.now
			}
			if !yield(p, nil) || order <= 0 && !step(a) || order >= 0 && !step(b) {
				return
			}
		}
	}
}

// untold is for an object of the source whose key its listing cannot say.
func (r *run) untold(o bucket.Object) {
	if !ours(o.Key) && r.o.Filter.passes(o) {
		r.tally.setUnheld(o.Key, fault.New(fault.KeyRefused, r.where(o.Key), "the source's listing cannot say the key of this object, and shows another one"))
	}
}

// plan decides about every object, and gives data to the crew at once.
func (r *run) plan(ctx context.Context) error {
	for p, err := range r.pairs(ctx) {
		if err != nil {
			return err
		}
		if err := r.crew.failed(); err != nil {
			return err
		}
		if ours(p.key()) {
			r.noteForeign(p)
			if err := r.marked(ctx, p); err != nil {
				return err
			}
			continue
		}
		r.count(ctx, p)
		if p.from == nil {
			if err := r.planDeletion(ctx, *p.to); err != nil {
				return err
			}
			continue
		}
		if !r.o.Filter.passes(*p.from) {
			continue
		}
		if err := r.planObject(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// count counts what takes part, and what the source has lost since the target got it. Files of a table of the source are not counted in that: a
// compaction puts few in the place of many.
func (r *run) count(ctx context.Context, p pair) {
	l := &r.listed
	from, to := p.from != nil && r.o.Filter.passes(*p.from), p.to != nil && r.o.Filter.passes(*p.to)
	if from {
		l.from++
	}
	switch {
	case !r.o.Delete || r.inTable(ctx, p.key()):
	case p.from != nil && p.to != nil: // the time that a filter asks for is another one on each side
		l.had++
	case to:
		l.had++
		l.lost++
	case from:
		l.lost--
	}
}

// inTable says whether a key belongs to a table of the source. Where that cannot be known it counts as any other.
func (r *run) inTable(ctx context.Context, key string) bool {
	if r.o.Tables == nil {
		return false
	}
	for _, folder := range []string{dataFolder, metadataFolder} {
		i := strings.LastIndex("/"+key, "/"+folder+"/")
		if i < 0 {
			continue
		}
		if is, err := r.takesPart(ctx, strings.TrimSuffix(key[:i], "/")); is && err == nil {
			return true
		}
	}
	return false
}

func (r *run) planDeletion(ctx context.Context, o bucket.Object) error {
	if !r.o.Delete || !r.o.Filter.passes(o) {
		return nil
	}
	if err := r.held(ctx, o.Key); err != nil { // another object would be deleted
		return r.unplanned(ctx, o.Key, err)
	}
	if root, hint := strings.CutSuffix("/"+o.Key, "/"+metadataFolder+"/"+versionHint); hint && r.o.Tables != nil {
		// A table of a catalog has a pointer at the far side only.
		if is, err := r.isTable(ctx, strings.TrimPrefix(root, "/")); is || err != nil {
			return r.unplanned(ctx, o.Key, err)
		}
	}
	switch classify(o.Key) {
	case classData:
		return r.later.deletions.data.put(entry{Object: o})
	case classPointer:
		return r.later.deletions.pointers.put(entry{Object: o})
	}
	return r.later.deletions.manifests.put(entry{Object: o})
}

func (r *run) planObject(ctx context.Context, p pair) error {
	if marker(*p.from) {
		r.tally.object(*p.from)
		if r.to.carrier == nil {
			r.leaveMarker(p.from.Key)
			return nil
		}
		return r.crew.give(ctx, job{object: *p.from, far: p.to})
	}
	if r.o.Tables != nil {
		root, of, err := r.ofTable(ctx, p)
		if err != nil {
			r.tally.object(*p.from)
			return r.unplanned(ctx, p.from.Key, err)
		}
		if of {
			if r.o.DryRun {
				r.compareOnly(newEntry(p))
			}
			if p.to != nil {
				r.arrived[root] = true
				if r.o.Beside.FollowLocks {
					return r.crew.give(ctx, job{object: *p.from, far: p.to, lock: true})
				}
				return nil
			}
			return r.later.inTables.put(entry{Object: *p.from, Table: root})
		}
	}
	r.tally.object(*p.from)
	class := classify(p.from.Key)
	hint := class == classPointer && path.Base(p.from.Key) == versionHint // and in a folder of metadata
	if (class == classMetadata || hint) && r.o.Tables != nil {
		is, err := r.isTable(ctx, tableRoot(p.from.Key))
		switch {
		case err != nil:
			return r.unplanned(ctx, p.from.Key, err)
		case is:
			return r.later.metadata.put(newEntry(p))
		}
		class = classData // a folder that only looks like a table's
	}
	switch class {
	case classManifest:
		return r.later.manifests.put(newEntry(p))
	case classChanges:
		return r.later.changes.put(newEntry(p))
	case classPointer:
		return r.later.pointers.put(newEntry(p))
	}
	return r.crew.give(ctx, job{object: *p.from, far: p.to})
}

// unplanned is for an object about which nothing can be decided: it fails by itself, as long as its side answers.
func (r *run) unplanned(ctx context.Context, key string, err error) error {
	if err == nil || r.ends(ctx, err) {
		return err
	}
	r.respelled.note(err)
	r.tally.setUnheld(key, err)
	return nil
}

// ofTable says whether a key is a data or delete file of an Iceberg table: those come with the table, because files of deletes name
// others by their path and are rewritten. A file in the data folder whose name is no such file's is an object like any other. Data lies in the table's data folder as a rule. Where a table's files may lie elsewhere, what the far
// side has under their keys may be rewritten already, so that it is not replaced.
func (r *run) ofTable(ctx context.Context, p pair) (root string, of bool, err error) {
	key := p.from.Key
	for from := 0; ; {
		i := strings.Index("/"+key[from:], "/"+dataFolder+"/")
		if i < 0 {
			break
		}
		root := strings.TrimSuffix(key[:from+i], "/")
		switch is, err := r.takesPart(ctx, root); {
		case err != nil:
			return root, false, err
		case is && !tableFile(key) && !strings.ContainsAny(path.Base(key)[:1], "._"): // sums and marks of writers stay behind
			return "", false, nil
		case is:
			return root, true, nil
		}
		from += i + len(dataFolder) + 1
	}
	if p.to == nil || sameETag(*p.from, *p.to) || !tableFile(key) || classify(key) != classData {
		return "", false, nil
	}
	for root = folderOf(key); ; root = folderOf(root) {
		if is, err := r.takesPart(ctx, root); is || err != nil || root == "" {
			return root, is, err
		}
	}
}

// tableFile says whether a key may be that of a file with data or deletes of an Iceberg table.
func tableFile(key string) bool {
	switch path.Ext(key) {
	case ".parquet", ".avro", ".orc", ".puffin":
		return true
	}
	return false
}

// folderOf is the folder that a key lies in; "" is the root.
func folderOf(key string) string { return key[:max(strings.LastIndexByte(key, '/'), 0)] }

// dataFolder is where an Iceberg table has its data.
const dataFolder = "data"

// tableLook is what a look at a folder came to.
type tableLook struct {
	is  bool
	err error
}

// isTable looks whether a folder of the source has the metadata of a table. Keys come in order, so it is asked once a folder; a look that
// failed is not repeated for each file of the folder.
func (r *run) isTable(ctx context.Context, root string) (bool, error) {
	if look, known := r.tables[root]; known {
		return look.is, look.err
	}
	if len(r.tables) >= mostRemembered {
		clear(r.tables)
	}
	var look tableLook
	look.err = r.guarded(root, func() (err error) {
		look.is, err = r.o.Tables.Is(ctx, root)
		return err
	})
	r.tables[root] = look
	return look.is, look.err
}

// takesPart says whether a folder of the source is a table that the filter lets pass as one. Else somebody wants its files alone.
func (r *run) takesPart(ctx context.Context, root string) (bool, error) {
	if !r.o.Filter.names(metadataOf(root) + "/" + versionHint) {
		return false, nil
	}
	return r.isTable(ctx, root)
}

// mostRemembered bounds what is remembered of folders.
const mostRemembered = 1000

// versionHint is the pointer of a table that needs no catalog.
const versionHint = "version-hint.text"

// class says when an object's turn comes.
type class int

const (
	classData     class = iota
	classMetadata       // of an Iceberg table: its paths are rewritten
	classManifest       // of a dump: it makes the dump visible
	classChanges        // manifests of change files: each makes a commit visible
	classPointer        // to any of these
)

func classify(key string) class {
	folder, name := folderOf(key), path.Base(key)
	switch {
	case name == dumpManifest:
		return classManifest
	case path.Base(folder) == changesFolder && strings.HasSuffix(name, ".json"):
		return classChanges
	case path.Base(folder) == changesFolder && name == "latest":
		return classPointer
	case folder != metadataFolder && !strings.HasSuffix(folder, "/"+metadataFolder):
		return classData
	case name == versionHint:
		return classPointer
	case strings.HasSuffix(name, ".metadata.json"), strings.HasSuffix(name, ".metadata.json.gz"), strings.HasSuffix(name, ".gz.metadata.json"),
		strings.HasSuffix(name, ".avro"), strings.HasSuffix(name, ".stats"), strings.HasSuffix(name, ".puffin"):
		return classMetadata
	}
	return classData
}

// metadataFolder is where an Iceberg table has its metadata.
const metadataFolder = "metadata"

// ours are the objects that leat keeps for its own work: state of pipelines, marks, reports, scratch objects.
func ours(key string) bool {
	for segment := range strings.SplitSeq(key, "/") {
		if segment == ".leat" || segment == "_leat" || strings.HasPrefix(segment, ".leat-probe-") {
			return true
		}
	}
	return false
}
