package lake

import (
	"context"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/arrow"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// filesTable is the history of one table as plain files. Data goes first, the manifest, which carries the position, last.
type filesTable struct {
	lake    *Files
	spec    Spec
	folder  string
	uploads context.Context // of what lives from one call to a later one
	cancel  context.CancelFunc

	last    *fileManifest // the newest one
	form    *filesForm
	columns []column   // of the last definition
	pending *fileBatch // nil when nothing is
	broken  error      // memory and bucket may differ: the table must be opened again
}

// filesForm is how the rows of one definition of the table are written.
type filesForm struct {
	rows    *historyTable // composes them
	columns []column
	parts   *partitioner
}

func (t *filesTable) open(ctx context.Context) error {
	form, err := t.formOf(t.spec)
	if err != nil {
		return err
	}
	t.form = form
	if err := t.load(ctx); err != nil {
		return err
	}
	if t.last == nil {
		err := t.publish(ctx, &fileManifest{Kind: commitBegin, Columns: form.columns})
		if fault.Is(err, fault.LakeConflict) {
			err = t.load(ctx)
		}
		if err != nil {
			return err
		}
	}
	if err := t.checkOwner(); err != nil {
		return err
	}
	t.columns = t.last.Columns
	if slices.ContainsFunc(t.columns, func(c column) bool { return c.Attnum == change.SpecialAttnum }) {
		t.spec = t.spec.withSpecial()
		if t.form, err = t.formOf(t.spec); err != nil {
			return err
		}
	}
	_, _, err = t.sweep(ctx, time.Time{})
	return err
}

func (t *filesTable) checkOwner() error {
	m := t.last
	switch {
	case m == nil:
		return fault.New(fault.LakeConflict, t.folder, "the table's first manifest was there and is gone")
	case m.Pipeline != t.lake.Pipeline:
		return fault.New(fault.LakeForeign, t.folder, "the files belong to pipeline %q, not to %q", m.Pipeline, t.lake.Pipeline)
	case m.Epoch > t.lake.Epoch:
		return fault.New(fault.PipelineFenced, t.folder, "a later process (epoch %d, ours is %d) has written the table", m.Epoch, t.lake.Epoch)
	}
	return nil
}

// formOf makes the form of a definition.
func (t *filesTable) formOf(spec Spec) (*filesForm, error) {
	system, err := profileColumns(t.lake.Profile)
	if err != nil {
		return nil, err
	}
	schema, err := historySchema(t.lake.Profile, spec)
	if err != nil {
		return nil, err
	}
	f := &filesForm{rows: &historyTable{spec: spec, system: system, schema: schema, fields: schema.Fields()[len(system):]}}
	for i, field := range spec.Schema.Fields() {
		if spec.WholeRowKey || slices.Contains(spec.Key, field.Name) {
			f.rows.key = append(f.rows.key, i)
		}
	}
	for i, c := range spec.Table.Columns {
		f.columns = append(f.columns, columnOf(c, len(system)+i))
	}
	fields, err := partitionFields(spec.Table.String(), spec.Partition, schema)
	if err != nil {
		return nil, err
	}
	f.parts, err = newPartitioner(fields, schema)
	return f, err
}

// fits says whether rows of a schema can be written in the form. The column of special values has one place and any name.
func (f *filesForm) fits(schema *arrow.Schema) bool {
	return slices.EqualFunc(f.rows.fields, schema.Fields(), func(a, b arrow.Field) bool {
		return (a.Name == b.Name || b.Name == change.SpecialName) && arrow.TypeEqual(a.Type, b.Type)
	})
}

func (t *filesTable) batch(f *filesForm) *fileBatch {
	return &fileBatch{lake: t.lake, name: t.spec.Table.Name, schema: f.rows.schema, parts: f.parts, open: map[string]*madeFile{}}
}

// Position is that of the newest manifest.
func (t *filesTable) Position() change.LSN { return t.last.Position }

// Columns are those of the last definition.
func (t *filesTable) Columns() []change.Column {
	out := make([]change.Column, len(t.columns))
	for i, c := range t.columns {
		out[i] = c.source()
	}
	return out
}

// Evolve takes over a new definition: rows of it go to files of their own, and the next manifest tells its columns.
func (t *filesTable) Evolve(_ context.Context, d Definition) error {
	return t.follow(t.specOf(d.Table, d.Schema))
}

// follow has rows of then on written by another spec.
func (t *filesTable) follow(spec Spec) error {
	form, err := t.formOf(spec)
	if err != nil {
		return err
	}
	if t.pending != nil && !form.rows.schema.Equal(t.form.rows.schema) {
		if err := t.pending.shape(form); err != nil {
			t.broken = err
			return err
		}
	}
	t.spec, t.form, t.columns = spec, form, form.columns
	return nil
}

// specOf is what is wanted of the table in another definition. The key is what the log tells rows by; without one, a history
// has no moves of keys to tell.
func (t *filesTable) specOf(table *change.Table, schema *arrow.Schema) Spec {
	spec := t.spec
	spec.Table, spec.Schema = table, schema
	if t.spec.hasSpecial() {
		spec = spec.withSpecial()
	}
	spec.Key, _ = namesOf(table, table.Identity())
	spec.WholeRowKey = len(spec.Key) == 0 && table.ReplicaIdentity == 'f'
	return spec
}

// Write puts the changes that the table does not hold yet into files in the making.
func (t *filesTable) Write(ctx context.Context, c *change.Changes) error {
	if t.broken != nil {
		return t.broken
	}
	c = since(c, t.last.Position)
	if c.Len() == 0 {
		return nil
	}
	if n := t.spec.columns(); len(specialNames(c.Rows, n))+len(specialNames(c.Old, n)) > 0 && !t.spec.hasSpecial() {
		if err := t.follow(t.spec.withSpecial()); err != nil {
			return err
		}
	}
	c, done := t.spec.changesWithRoom(c)
	defer done()
	if !t.form.fits(c.Rows.Schema()) {
		return fault.New(fault.Internal, t.folder, "changes came before the table had followed the source's new definition")
	}
	record, err := t.form.rows.of(c)
	if err != nil {
		return err
	}
	defer record.Release()
	if t.pending == nil {
		t.pending = t.batch(t.form)
	}
	if err := t.pending.write(ctx, record); err != nil {
		t.broken = err
	}
	return t.broken
}

// Pending counts what is not committed.
func (t *filesTable) Pending() (rows, bytes int64) {
	if t.pending == nil {
		return 0, 0
	}
	return t.pending.rows, t.pending.size()
}

// Commit uploads the files and publishes their manifest.
func (t *filesTable) Commit(ctx context.Context, to change.LSN, at time.Time) (Committed, error) {
	done := Committed{Position: to}
	if t.broken != nil {
		return done, t.broken
	}
	if t.pending == nil {
		return done, nil
	}
	t.broken = t.commit(ctx, to, at)
	if t.broken != nil {
		return done, t.broken
	}
	done.Rows, done.Files, done.Bytes = int(t.last.Rows), len(t.last.Files), t.last.Bytes
	return done, nil
}

func (t *filesTable) commit(ctx context.Context, to change.LSN, at time.Time) error {
	from := t.last.Position
	files, err := t.pending.upload(ctx, t.folder, stampHex(from)+"-"+stampHex(to))
	t.pending = nil
	if err != nil {
		return err
	}
	return t.publish(ctx, &fileManifest{Kind: commitChanges, From: from, Position: to, CommittedAt: at.UTC(), Columns: t.columns, Files: files})
}

// Abandon forgets what is pending.
func (t *filesTable) Abandon() {
	if t.pending != nil {
		t.pending.discard()
		t.pending = nil
	}
}

// Close abandons what is pending.
func (t *filesTable) Close() error {
	t.Abandon()
	if t.last != nil && t.broken == nil && t.last.Number%hintEvery != 0 && t.last.Kind == commitChanges {
		t.hint(t.uploads)
	}
	t.cancel()
	return nil
}

// Maintain has nothing to do: change files stay as they are.
func (t *filesTable) Maintain(context.Context, MaintainOptions) (Maintained, error) {
	return Maintained{}, nil
}

// The names of files. Those of changes begin with the position before them, those of a copy with 0 and end in a hash of the
// chunk. A folder of a partition is <name>=<value>.
var (
	changesName = regexp.MustCompile(`^([0-9a-f]{16})-[0-9a-f]{16}-\d{3,}\.(?:parquet|avro|csv|csv\.gz|jsonl|jsonl\.gz)$`)
	copyName    = regexp.MustCompile(`^0{16}-[0-9a-f]{16}-[0-9a-f]{16}-\d{3,}\.(?:parquet|avro|csv|csv\.gz|jsonl|jsonl\.gz)$`)
	foldersName = regexp.MustCompile(`^(?:[^/=]+=[^/]*/)*$`)
)

// sweep removes files of our shape that no manifest and no copy names. Changes of a commit that did not happen begin at the table's
// position; what begins before it was named, or swept when the table was opened after the failure. A time that is not zero spares
// what is younger.
func (t *filesTable) sweep(ctx context.Context, before time.Time) (n int, size int64, err error) {
	position := stampHex(t.last.Position)
	var lost, copied []bucket.Object
	for _, prefix := range t.sweepPrefixes(before.IsZero()) {
		for o, err := range t.lake.Bucket.List(ctx, prefix) {
			if err != nil {
				return 0, 0, err
			}
			folders, name := path.Split(strings.TrimPrefix(o.Key, t.folder+"/"))
			if !foldersName.MatchString(folders) || !before.IsZero() && !o.Modified.Before(before) {
				continue
			}
			if m := changesName.FindStringSubmatch(name); m != nil && m[1] >= position {
				lost = append(lost, o)
			} else if copyName.MatchString(name) {
				copied = append(copied, o)
			}
		}
	}
	if len(lost)+len(copied) == 0 {
		return 0, 0, nil
	}
	named, err := t.named(ctx, len(copied) > 0)
	if err != nil {
		return 0, 0, err
	}
	var keys []string
	for _, o := range append(lost, copied...) {
		if !named[o.Key] {
			keys, size = append(keys, o.Key), size+o.Size
		}
	}
	return len(keys), size, t.lake.Bucket.Delete(ctx, keys...)
}

// sweepPrefixes are where lost files may lie. Without partitions their names tell; whoever is in no hurry looks everywhere.
func (t *filesTable) sweepPrefixes(hurry bool) []string {
	if !hurry || len(t.spec.Partition) > 0 {
		return []string{t.folder + "/"}
	}
	zero := t.folder + "/" + stampHex(0) + "-"
	if t.last.Position == 0 {
		return []string{zero}
	}
	return []string{zero, t.folder + "/" + stampHex(t.last.Position) + "-"}
}

// named are the files of the newest manifest and, where asked for, those of all copies.
func (t *filesTable) named(ctx context.Context, copies bool) (map[string]bool, error) {
	named := map[string]bool{}
	note := func(files []fileEntry) {
		for _, f := range files {
			named[f.Key] = true
		}
	}
	note(t.last.Files)
	if !copies {
		return named, nil
	}
	for _, c := range t.last.Copies {
		m, err := t.manifest(ctx, c.Number)
		if err != nil {
			return nil, err
		}
		note(m.Files)
	}
	for o, err := range t.lake.Bucket.List(ctx, t.copyFolder()+"/") {
		if err != nil {
			return nil, err
		}
		if path.Base(o.Key) == copyNoteName {
			continue
		}
		l, err := readLedger[fileLedger](ctx, t.lake.Bucket, o.Key)
		if err != nil {
			return nil, err
		}
		note(l.Files)
	}
	return named, nil
}
