package lake

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

// movedMetadata is a version of the table's metadata with its new paths.
type movedMetadata struct {
	moved      []byte
	lists      []listedSnapshot
	statistics []statisticsFile
}

// listedSnapshot is where a snapshot's manifests are named: a list, or, in the oldest tables, the metadata itself.
type listedSnapshot struct {
	list      string
	manifests []string
}

type statisticsFile struct {
	path string
	size int64
}

// object is JSON of which only some fields are looked at: the others stay as they are, to the last digit.
type object map[string]json.RawMessage

// readMetadata understands a version of the metadata as far as it names files, and moves the names.
func (m *mover) readMetadata(name string, data []byte) (*movedMetadata, error) {
	out := &movedMetadata{}
	packed := bytes.HasPrefix(data, []byte{0x1f, 0x8b})
	if strings.Contains(name, ".gz.") || strings.HasSuffix(name, ".gz") {
		if !packed { // readers go by the name
			return nil, fault.New(fault.LakeFailed, asFolder(m.FromURL)+m.metadataKey(name), "the table's metadata is not packed, as its name says: something on the way has unpacked it, or it was damaged")
		}
	}
	if packed {
		var err error
		if data, err = format.UnpackGzip(data); err != nil {
			return nil, m.failed(err, m.metadataKey(name), "the table's metadata cannot be unpacked")
		}
	}
	moved, err := m.moveMetadata(data, out)
	if err != nil {
		return nil, m.failed(err, m.metadataKey(name), "the table's metadata cannot be understood")
	}
	if packed {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err = w.Write(moved); err == nil {
			err = w.Close()
		}
		moved = z.Bytes()
	}
	out.moved = moved
	return out, m.failed(err, m.metadataKey(name), "the table's metadata cannot be packed")
}

func (m *mover) moveMetadata(data []byte, out *movedMetadata) ([]byte, error) {
	var doc object
	if err := bucket.DecodeJSON(data, &doc); err != nil {
		return nil, err
	}
	if doc["location"] == nil || doc["format-version"] == nil {
		return nil, fault.New(fault.LakeFailed, m.where(), "its metadata is not that of an Iceberg table")
	}
	steps := []func() error{
		func() error { return doc.text("location", m.places.movedFolder) },
		func() error { return doc.objects("snapshots", func(s object) error { return m.moveSnapshot(s, out) }) },
		func() error {
			return doc.objects("metadata-log", func(e object) error { return e.text("metadata-file", m.places.moved) })
		},
		func() error { return doc.object("properties", m.moveProperties) },
	}
	for _, list := range []string{"statistics", "partition-statistics"} {
		steps = append(steps, func() error {
			return doc.objects(list, func(s object) error { return m.moveStatistics(s, out) })
		})
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return nil, err
		}
	}
	return asJSON(doc)
}

func (m *mover) moveSnapshot(s object, out *movedMetadata) error {
	var from listedSnapshot
	err := s.text("manifest-list", func(path string) (string, error) {
		from.list = path
		return m.places.moved(path)
	})
	if err != nil {
		return err
	}
	if inline := s["manifests"]; inline != nil && from.list == "" {
		if err := json.Unmarshal(inline, &from.manifests); err != nil {
			return err
		}
		moved := slices.Clone(from.manifests)
		for i := range moved {
			if moved[i], err = m.places.moved(moved[i]); err != nil {
				return err
			}
		}
		if s["manifests"], err = asJSON(moved); err != nil {
			return err
		}
	}
	out.lists = append(out.lists, from)
	return nil
}

func (m *mover) moveStatistics(s object, out *movedMetadata) error {
	var f statisticsFile
	if err := json.Unmarshal(s["file-size-in-bytes"], &f.size); err != nil {
		return err
	}
	if f.size < 0 {
		return errNegativeSize
	}
	err := s.text("statistics-path", func(path string) (string, error) {
		f.path = path
		return m.places.moved(path)
	})
	out.statistics = append(out.statistics, f)
	return err
}

var errNegativeSize = errors.New("it names a file whose size is below zero")

// pathProperties are those that say where writers put files.
var pathProperties = []string{"write.data.path", "write.metadata.path", "write.object-storage.path", "write.folder-storage.path"}

// moveProperties moves each property that is a path below the old root. Of those that must be one, no other place is let pass.
func (m *mover) moveProperties(p object) error {
	for name, raw := range p {
		var value string
		if json.Unmarshal(raw, &value) != nil {
			continue
		}
		moved, err := m.places.movedFolder(value)
		if err != nil {
			if slices.Contains(pathProperties, name) && (strings.Contains(value, ":/") || strings.HasPrefix(value, "/")) {
				return err
			}
			continue
		}
		if p[name], err = asJSON(moved); err != nil {
			return err
		}
	}
	return nil
}

// text changes a field that is a string. An absent one stays absent.
func (o object) text(field string, change func(string) (string, error)) error {
	raw := o[field]
	if raw == nil || string(raw) == "null" {
		return nil
	}
	var value string
	if err := json.Unmarshal(raw, &value); err != nil {
		return err
	}
	value, err := change(value)
	if err != nil {
		return err
	}
	o[field], err = asJSON(value)
	return err
}

func (o object) object(field string, change func(object) error) error {
	raw := o[field]
	if raw == nil || string(raw) == "null" {
		return nil
	}
	var inside object
	err := json.Unmarshal(raw, &inside)
	if err == nil {
		err = change(inside)
	}
	if err == nil {
		o[field], err = asJSON(inside)
	}
	return err
}

func (o object) objects(field string, change func(object) error) error {
	raw := o[field]
	if raw == nil || string(raw) == "null" {
		return nil
	}
	var list []object
	if err := json.Unmarshal(raw, &list); err != nil {
		return err
	}
	for _, inside := range list {
		if err := change(inside); err != nil {
			return err
		}
	}
	moved, err := asJSON(list)
	o[field] = moved
	return err
}

// asJSON writes letters as they are, not in the escapes of HTML.
func asJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

func (m *mover) carryStatistics(ctx context.Context, f statisticsFile) error {
	return m.carry(ctx, f.path, f.size, &m.statistics)
}
