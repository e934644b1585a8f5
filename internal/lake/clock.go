package lake

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"github.com/apache/iceberg-go/table"
)

// updated is table.UpdateTableMetadata on a machine whose clock may have been set back: the library takes the clock's time for what
// has no snapshot, and refuses one that lies more than a minute before the table's last change. A table's time stands still then,
// until the clock has come past it.
func updated(base table.Metadata, updates []table.Update, location string) (table.Metadata, error) {
	now, last := time.Now().UnixMilli(), base.LastUpdatedMillis()
	if now >= last {
		return table.UpdateTableMetadata(base, updates, location)
	}
	times := map[string]json.Number{} // of the entries of both logs, by what they name
	early, err := withTimes(base, func(name string, at json.Number) json.Number {
		times[name] = at
		return json.Number(strconv.FormatInt(min(now, toMillis(at)), 10))
	})
	if err != nil {
		return nil, err
	}
	next, err := table.UpdateTableMetadata(early, updates, location)
	if err != nil {
		return nil, err
	}
	return withTimes(next, func(name string, at json.Number) json.Number {
		if was, known := times[name]; known && name != lastUpdated {
			return was
		}
		return json.Number(strconv.FormatInt(max(last, toMillis(at)), 10))
	})
}

// wantsSnapshot says that even a commit without data needs a snapshot, which brings a time of its own: the clock is behind, and a
// catalog that is not ours has no other way to take anything but the clock's time.
func (t *icebergTable) wantsSnapshot(base table.Metadata) bool {
	_, ours := t.lake.catalog.(*fileCatalog)
	return !ours && time.Now().Add(clockSlack).UnixMilli() < base.LastUpdatedMillis()
}

// clockSlack is less than the minute that the library bears.
const clockSlack = 30 * time.Second

const lastUpdated = "last-updated-ms"

func toMillis(n json.Number) int64 {
	ms, _ := n.Int64() // the library wrote it
	return ms
}

// withTimes is the same metadata with other times of its last change and in its logs.
func withTimes(m table.Metadata, change func(name string, at json.Number) json.Number) (table.Metadata, error) {
	data, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	var all map[string]any
	in := json.NewDecoder(bytes.NewReader(data))
	in.UseNumber()
	if err := in.Decode(&all); err != nil {
		return nil, err
	}
	if at, ok := all[lastUpdated].(json.Number); ok {
		all[lastUpdated] = change(lastUpdated, at)
	}
	for _, log := range []struct{ name, names string }{{"snapshot-log", "snapshot-id"}, {"metadata-log", "metadata-file"}} {
		entries, _ := all[log.name].([]any) // none in a new table
		for _, e := range entries {
			entry, ok := e.(map[string]any)
			at, timed := entry["timestamp-ms"].(json.Number)
			if !ok || !timed {
				continue
			}
			name, _ := json.Marshal(entry[log.names]) // of text or a number: there is no error
			entry["timestamp-ms"] = change(log.name+string(name), at)
		}
	}
	if data, err = json.Marshal(all); err != nil {
		return nil, err
	}
	return table.ParseMetadataBytes(data)
}
