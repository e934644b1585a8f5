package lake

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"path"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// mostLookedAt is how many files with the name of a version are read before a folder counts as no table.
const mostLookedAt = 20

// IsTable says whether a folder of a bucket is an Iceberg table: a file that has the name of a version of a table's metadata must also say
// so. Other programs have folders called metadata and files called *.metadata.json too. An error is of the bucket; a file that cannot
// be understood is no metadata.
func IsTable(ctx context.Context, from bucket.Bucket, root string) (bool, error) {
	m := &mover{Relocation: Relocation{From: from, FromURL: from.Properties().URL, Root: root, Log: slog.New(slog.DiscardHandler)}}
	v, err := m.current(ctx)
	if fault.Is(err, fault.LakeMissing) || fault.Is(err, fault.UsageInvalid) { // no table of leat's or of a catalog has such a key
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if is, err := m.isMetadata(ctx, v.name); is || err != nil {
		return is, err
	}
	looked, prefix := 1, m.metadataKey("")
	for o, err := range from.List(ctx, prefix) {
		if err != nil {
			return false, err
		}
		name := o.Key[len(prefix):]
		if _, ok := parseVersion(name); !ok || name == v.name {
			continue
		}
		if is, err := m.isMetadata(ctx, name); is || err != nil {
			return is, err
		}
		if looked++; looked >= mostLookedAt {
			break
		}
	}
	return false, nil
}

// NotDamaged is for a folder of the source that is no table. It is lake-failed if the target has a table there that a relocation brought, and the source
// still has files of the table's metadata: then they are damaged, or their listing has lost some, and taken for plain files they would replace and
// delete what makes the target's table.
func NotDamaged(ctx context.Context, from, to bucket.Bucket, root string) error {
	m := &mover{Relocation: Relocation{From: from, To: to, FromURL: from.Properties().URL, Root: root, Log: slog.New(slog.DiscardHandler)}}
	if _, err := to.Stat(ctx, m.listKey()); err != nil {
		if fault.Is(err, fault.ObjectMissing) || fault.Is(err, fault.UsageInvalid) {
			return nil
		}
		return err
	}
	damaged := fault.New(fault.LakeFailed, m.where(), "the target has this table, and the source has files of its metadata which are no table: they are damaged, or their listing has lost some").
		WithMend("Restore the table's metadata at the source. If it is no table any more, remove the table's metadata folder at the target.")
	prefix, has, looked := m.metadataKey(""), false, 0
	for o, err := range to.List(ctx, prefix) {
		if err != nil {
			return err
		}
		if _, version := parseVersion(o.Key[len(prefix):]); !version {
			continue
		}
		has = true
		switch _, err := from.Stat(ctx, o.Key); {
		case err == nil:
			return damaged
		case !fault.Is(err, fault.ObjectMissing):
			return err
		}
		if looked++; looked >= mostLookedAt {
			break
		}
	}
	if !has {
		return nil
	}
	for o, err := range from.List(ctx, prefix) {
		if err != nil {
			return err
		}
		if _, version := parseVersion(o.Key[len(prefix):]); version || path.Ext(o.Key) == ".avro" {
			return damaged
		}
	}
	return nil
}

// isMetadata looks whether a file has the fields without which there is no metadata of a table, in any version of the format
// (iceberg.apache.org/spec/#table-metadata-fields).
func (m *mover) isMetadata(ctx context.Context, name string) (bool, error) {
	in, err := m.From.Open(ctx, m.metadataKey(name), 0, -1)
	if fault.Is(err, fault.ObjectMissing) {
		return false, nil // a version that expired since it was listed
	}
	if err != nil {
		return false, err
	}
	defer in.Close()
	read := &faultsOf{in: in}
	plain := bufio.NewReader(io.LimitReader(read, format.MostUnpacked))
	if head, _ := plain.Peek(2); string(head) == "\x1f\x8b" {
		unpacked, err := gzip.NewReader(plain)
		if err != nil {
			return false, read.fault
		}
		plain = bufio.NewReader(io.LimitReader(unpacked, format.MostUnpacked))
	}
	is := saysTable(json.NewDecoder(plain))
	return is, read.fault
}

// saysTable reads an object's own fields as far as need be and steps over what they hold.
func saysTable(in *json.Decoder) bool {
	if first, err := in.Token(); err != nil || first != json.Delim('{') {
		return false
	}
	version, location := false, false
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return false
		}
		value, err := in.Token()
		if err != nil {
			return false
		}
		switch name {
		case "format-version":
			_, version = value.(float64)
		case "location":
			_, location = value.(string)
		}
		if version && location {
			return true
		}
		if _, opens := value.(json.Delim); opens && stepOver(in) != nil {
			return false
		}
	}
	return false
}

// stepOver reads to the end of a list or an object that has begun.
func stepOver(in *json.Decoder) error {
	for depth := 1; depth > 0; {
		t, err := in.Token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
	return nil
}

// faultsOf remembers the error of a reader below decoders, which wrap it or take it for a fault of the content.
type faultsOf struct {
	in    io.Reader
	fault error
}

func (f *faultsOf) Read(p []byte) (int, error) {
	n, err := f.in.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		f.fault = err
	}
	return n, err
}
