package mirror

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/fault"
)

// dumpManifest is the object that makes a folder a dump.
const dumpManifest = dump.ManifestName

// carryTables brings Iceberg tables up to date, each after its files.
func (r *run) carryTables(ctx context.Context) error {
	root, entries, begun := "", []entry(nil), false
	for e, err := range r.later.metadata.all() {
		if err != nil {
			return err
		}
		at := tableRoot(e.Key)
		if begun && at != root {
			if err := r.carryTable(ctx, root, entries); err != nil {
				return err
			}
			entries = entries[:0]
		}
		root, begun = at, true
		entries = append(entries, e)
	}
	if !begun {
		return nil
	}
	return r.carryTable(ctx, root, entries)
}

// tableRoot is the folder whose metadata folder holds the key.
func tableRoot(key string) string {
	i := strings.LastIndex("/"+key, "/"+metadataFolder+"/")
	return strings.TrimSuffix(key[:i], "/")
}

// metadataOf is the folder of a table's metadata.
func metadataOf(root string) string { return strings.TrimPrefix(root+"/"+metadataFolder, "/") }

// carryTable has the table's metadata rewritten.
func (r *run) carryTable(ctx context.Context, root string, entries []entry) error {
	if r.o.DryRun {
		for _, e := range entries {
			r.compareOnly(e)
		}
		return nil
	}
	r.failed[root] = true // until it has come to its end
	if err := r.held(ctx, metadataOf(root)+"/"+versionHint); err != nil {
		return r.unplanned(ctx, metadataOf(root), err)
	}
	var changed bool
	err := r.guarded(root, func() (err error) {
		changed, err = r.o.Tables.Relocate(ctx, root, r.tableFiles(root, entries))
		return err
	})
	switch {
	case err != nil && r.ends(ctx, err):
		return err
	case err != nil:
		r.setAside(ctx, metadataOf(root), err)
	default:
		delete(r.failed, root)
		r.tally.add(func(report *Report) {
			if changed {
				report.Tables++
			} else {
				report.TablesSame++
			}
		})
	}
	return nil
}

// carryFile brings a file of a table. Where a killed run may have brought it, it is looked for.
func (r *run) carryFile(ctx context.Context, o bucket.Object, maybe bool) error {
	j, err := r.fileJob(ctx, o, maybe)
	if err != nil {
		return err
	}
	return r.patiently(ctx, j)
}

// fileJob is the work on a file that something else names, which must be there in the end.
func (r *run) fileJob(ctx context.Context, o bucket.Object, maybe bool) (job, error) {
	j := job{object: o, sure: true, needed: true}
	if !maybe {
		return j, nil
	}
	far, err := r.to.bucket.Stat(ctx, o.Key)
	if fault.Is(err, fault.ObjectMissing) {
		return j, nil
	}
	if err == nil {
		j.object, err = r.from.bucket.Stat(ctx, o.Key)
	}
	j.sure, j.far = false, &far
	return j, err
}

// compareOnly is for a run that changes nothing: what a table's metadata becomes is not known before it is rewritten.
func (r *run) compareOnly(e entry) {
	v := Verdict{Same: WayOrigin}
	if e.Far == nil {
		v = Verdict{Differ: ReasonMissing}
	}
	r.tally.compared(e.Object, v)
}

// carryEach has a crew of its own do with each entry what carry does.
func (r *run) carryEach(ctx context.Context, entries iter.Seq2[entry, error], carry func(context.Context, job) error) error {
	crew := r.newCrew(ctx, carry)
	var err error
	for e, broken := range entries {
		if err = broken; err == nil {
			err = crew.give(ctx, job{object: e.Object, far: e.Far})
		}
		if err != nil {
			break
		}
	}
	return errors.Join(crew.end(), err)
}

// patiently carries one object, again and again as the crew would.
func (r *run) patiently(ctx context.Context, j job) error {
	for {
		err := r.carry(ctx, j)
		if j.attempts++; err == nil || ctx.Err() != nil || !r.again(&j, err) {
			return err
		}
		if err := r.pause(ctx, j, err); err != nil {
			return err
		}
	}
}

// carryManifests makes dumps visible: each manifest comes when all that it names is there and right.
func (r *run) carryManifests(ctx context.Context) error {
	for e, err := range r.later.manifests.all() {
		if err != nil {
			return err
		}
		err := r.guarded(e.Key, func() error { return r.carryManifest(ctx, e) })
		if err != nil && r.ends(ctx, err) {
			return err
		}
		if err != nil {
			r.setAside(ctx, e.Key, err)
		}
	}
	return nil
}

func (r *run) carryManifest(ctx context.Context, e entry) error {
	if err := r.held(ctx, e.Key); err != nil {
		return err
	}
	if r.veils.lifted(e.Key) {
		e.Far = nil
	}
	v, err := r.compare(ctx, e.Object, e.Far)
	if fault.Is(err, fault.ObjectMissing) {
		return r.gone(ctx, e.Key, err)
	}
	if err != nil {
		return err
	}
	r.tally.compared(e.Object, v)
	if v.Same != "" {
		return r.patiently(ctx, job{object: e.Object, lock: true})
	}
	if r.o.DryRun {
		return nil
	}
	m, err := dump.ReadManifest(ctx, r.from.bucket, folderOf(e.Key))
	switch {
	case fault.Is(err, fault.ObjectMissing):
		return r.gone(ctx, e.Key, err)
	case fault.Is(err, fault.BucketFailed), fault.Is(err, fault.BucketUnsupported):
		m = nil // another program's, under the same name
	case err != nil:
		return err
	}
	if m != nil {
		if err := r.proveDump(ctx, m, folderOf(e.Key)); err != nil {
			return err
		}
	}
	// What was proved is what the listing told, if the object is still that one.
	if err := r.patiently(ctx, job{object: e.Object, sure: true, exact: true}); err != nil {
		return err
	}
	if m != nil {
		r.tally.add(func(report *Report) { report.Dumps++ })
	}
	return nil
}

// proveDump makes sure that the far side has every file of a dump, with the size and the SHA-256 that its manifest names: of
// what this run has carried both are known; the rest is read back. What then shows to be another file is carried: the other manifest that told so
// is gone by now, as after a kill.
func (r *run) proveDump(ctx context.Context, m *dump.Manifest, folder string) error {
	sums := map[string]*[sha256.Size]byte{}
	files := filesOf(m, folder)
	for _, f := range files {
		if err := r.held(ctx, f.Key); err != nil {
			return err
		}
		sums[f.Key] = nil
	}
	if err := r.sums.find(sums); err != nil {
		return err
	}
	for _, f := range files {
		if got := sums[f.Key]; got != nil {
			if err := r.isAsNamed(f, *got); err != nil {
				return err
			}
			continue
		}
		err := r.proveFar(ctx, f)
		if fault.Is(err, fault.ChecksumMismatch) || fault.Is(err, fault.ObjectMissing) {
			err = r.carryNamed(ctx, f, err)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// proveFar reads a file back.
func (r *run) proveFar(ctx context.Context, f dump.FileManifest) error {
	sum, err := r.readBack(ctx, f)
	if err != nil {
		return err
	}
	return r.isAsNamed(f, sum)
}

func (r *run) isAsNamed(f dump.FileManifest, sum [sha256.Size]byte) error {
	if got := hex.EncodeToString(sum[:]); got != f.SHA256 {
		return fault.New(fault.ChecksumMismatch, r.to.bucket.Properties().URL+"/"+f.Key, "the dump's manifest names SHA-256 %s and the file has %s", f.SHA256, got).
			WithMend("Look at the file at the source: it is not what the dump wrote.")
	}
	return nil
}

// carryNamed carries a file of a dump of which the far side has another, and proves it; wrong is what stands where it may not be carried.
func (r *run) carryNamed(ctx context.Context, f dump.FileManifest, wrong error) error {
	o, err := r.listedNow(ctx, f.Key)
	if err != nil {
		return err
	}
	if ours(f.Key) || !r.o.Filter.passes(o) {
		return wrong
	}
	j := job{object: o, sure: true, needed: true}
	switch far, err := r.to.bucket.Stat(ctx, f.Key); {
	case err == nil:
		j.far = &far
	case !fault.Is(err, fault.ObjectMissing):
		return err
	}
	if err := r.patiently(ctx, j); err != nil {
		return err
	}
	return r.proveFar(ctx, f)
}

// filesOf are the files of a dump, by their keys below a folder. The manifest names keys below the root that the dump was written to; the
// dump's folder lies where it lies now.
func filesOf(m *dump.Manifest, folder string) (files []dump.FileManifest) {
	if folder != "" {
		folder += "/"
	}
	for _, t := range m.Tables {
		for _, f := range t.Files {
			f.Key = folder + strings.TrimPrefix(f.Key, m.Folder+"/")
			files = append(files, f)
		}
	}
	return files
}

func (r *run) readBack(ctx context.Context, f dump.FileManifest) (sum [sha256.Size]byte, err error) {
	in, err := r.to.bucket.Open(ctx, f.Key, 0, -1)
	if err != nil {
		return sum, fault.Wrap(err, codeOf(err), r.to.bucket.Properties().URL+"/"+f.Key, "a file of the dump is not at the far side")
	}
	defer in.Close()
	hash := sha256.New()
	n, err := io.Copy(hash, in)
	if err != nil {
		return sum, r.cut(ctx, err, f.Key)
	}
	if n != f.Bytes {
		return sum, fault.New(fault.ChecksumMismatch, r.to.bucket.Properties().URL+"/"+f.Key, "the dump's manifest names %d bytes and the file has %d", f.Bytes, n)
	}
	return [sha256.Size]byte(hash.Sum(nil)), nil
}

func codeOf(err error) fault.Code {
	if f := fault.Of(err); f != nil {
		return f.Code
	}
	return fault.Internal
}

// reportFolder is where mirrors leave their reports.
const reportFolder = ".leat/mirror/"

// reportKey is where a mirror's report lies at the far side.
func reportKey(name string) string { return reportFolder + change.EncodeName(name) + ".json" }

func (r *run) writeReport(ctx context.Context, report Report) error {
	data, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return fault.Wrap(err, fault.Internal, "report", "cannot be written as JSON")
	}
	_, err = bucket.WriteAll(ctx, r.to.bucket, reportKey(r.o.Name), append(data, '\n'), bucket.WriteOptions{ContentType: "application/json"})
	return err
}
