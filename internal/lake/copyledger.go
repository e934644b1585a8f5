package lake

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

const copyNoteName = "copy.json"

// copyLedgers keep one object a finished chunk of a copy, its ledger, in a folder that is named by the copy's id; copy.json
// beside it tells the id of the copy that counts.
type copyLedgers struct {
	bucket bucket.Bucket
	folder string
	id     string

	mu   sync.Mutex
	done map[string]ledgerKey // by chunk
}

type ledgerKey struct {
	key   string
	stamp change.LSN
}

type copyNote struct {
	ID string `json:"id"`
	copyLayouts
}

// copyLayouts are what a copy's files are written for.
type copyLayouts struct {
	Layouts map[string]string `json:"layouts,omitempty"` // hashes by the kind of an Iceberg table
	Drafts  []string          `json:"drafts,omitempty"`  // kinds whose table is not there yet: nothing but the note tells its layout
	copies  map[string]string // by kind, the last copy that the table has
}

// hold says whether files of the copy that a note tells of fit the tables of now. A table that was not there when the
// copy began may have been made since: by the copy itself, which is right, or by an owner before this one, in another
// layout.
func (l copyLayouts) hold(note copyNote) bool {
	return !slices.ContainsFunc(slices.Concat(l.Drafts, note.Drafts), func(kind string) bool {
		return l.copies[kind] != note.ID && note.Layouts[kind] != l.Layouts[kind]
	})
}

// openCopyLedgers takes up the copy that the folder tells of, or begins one.
func openCopyLedgers(ctx context.Context, b bucket.Bucket, folder string, layouts copyLayouts) (*copyLedgers, error) {
	c := &copyLedgers{bucket: b, folder: folder, done: map[string]ledgerKey{}}
	key := folder + "/" + copyNoteName
	data, err := bucket.ReadAll(ctx, b, key, 4096)
	var note copyNote
	begins := fault.Is(err, fault.ObjectMissing)
	if err != nil && !begins {
		return nil, err
	}
	if !begins {
		if err := bucket.DecodeJSON(data, &note); err != nil || note.ID == "" {
			return nil, fault.New(fault.StateUnusable, key, "the note of a copy cannot be understood")
		}
		begins = !layouts.hold(note) // its files are left to Sweep
	}
	if begins {
		note = copyNote{ID: fresh(), copyLayouts: layouts}
		data, _ := json.Marshal(note) // of strings: there is no error
		if _, err := bucket.WriteAll(ctx, b, key, data, bucket.WriteOptions{ContentType: "application/json", Lazy: true}); err != nil {
			return nil, err // it is on the disk before a ledger or the copy is
		}
	}
	c.id = note.ID
	return c, c.list(ctx)
}

// list finds the finished chunks, and removes the ledgers of an earlier copy that was finished or abandoned.
func (c *copyLedgers) list(ctx context.Context) error {
	var old []string
	for o, err := range c.bucket.List(ctx, c.folder+"/") {
		if err != nil {
			return err
		}
		id, name, ok := strings.Cut(strings.TrimPrefix(o.Key, c.folder+"/"), "/")
		if !ok {
			continue
		}
		if id != c.id {
			old = append(old, o.Key)
			continue
		}
		stamp, chunk, ok := strings.Cut(strings.TrimSuffix(name, ".json"), "-")
		lsn, err := strconv.ParseUint(stamp, 16, 64)
		if !ok || err != nil {
			return fault.New(fault.StateUnusable, o.Key, "is no ledger of a copied chunk")
		}
		c.done[unlakeName(chunk)] = ledgerKey{o.Key, change.LSN(lsn)}
	}
	return c.bucket.Delete(ctx, old...)
}

// unlakeName undoes lakeName.
func unlakeName(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '~' && i+2 < len(name) {
			if v, err := strconv.ParseUint(name[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(v))
				i += 2
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

// Done tells the finished chunks and their stamps.
func (c *copyLedgers) Done() map[string]change.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[string]change.LSN, len(c.done))
	for id, k := range c.done {
		out[id] = k.stamp
	}
	return out
}

// add writes the ledger of a chunk: from then on the chunk is done.
func (c *copyLedgers) add(ctx context.Context, chunk string, stamp change.LSN, ledger any) error {
	data, err := json.Marshal(ledger)
	if err != nil {
		return fault.Wrap(err, fault.Internal, chunk, "the ledger of a chunk cannot be written")
	}
	key := c.folder + "/" + c.id + "/" + stampHex(stamp) + "-" + lakeName(chunk) + ".json"
	if _, err := bucket.WriteAll(ctx, c.bucket, key, data, bucket.WriteOptions{ContentType: "application/json"}); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done[chunk] = ledgerKey{key, stamp}
	return nil
}

const ledgersAtOnce = 16

// readLedgers reads the ledgers of all finished chunks, in the order of their stamps.
func readLedgers[L any](ctx context.Context, c *copyLedgers) ([]L, error) {
	c.mu.Lock()
	keys := slices.SortedFunc(maps.Values(c.done), func(a, b ledgerKey) int {
		return cmp.Or(cmp.Compare(a.stamp, b.stamp), cmp.Compare(a.key, b.key))
	})
	c.mu.Unlock()
	out := make([]L, len(keys))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(ledgersAtOnce)
	for i, k := range keys {
		g.Go(func() (err error) {
			out[i], err = readLedger[L](ctx, c.bucket, k.key)
			return err
		})
	}
	return out, g.Wait()
}

func readLedger[L any](ctx context.Context, b bucket.Bucket, key string) (l L, err error) {
	data, err := bucket.ReadAll(ctx, b, key, maxMetadata)
	if err != nil {
		return l, err
	}
	return l, fault.Wrap(bucket.DecodeJSON(data, &l), fault.StateUnusable, key, "the ledger of a chunk cannot be understood")
}

// remove forgets the copy: what it knew of chunks is gone with its note.
func (c *copyLedgers) remove(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := forgetCopy(ctx, c.bucket, c.folder); err != nil {
		return err
	}
	clear(c.done)
	return nil
}

// forgetCopy removes the note first: without it the ledgers are nobody's.
func forgetCopy(ctx context.Context, b bucket.Bucket, folder string) error {
	if err := b.Delete(ctx, folder+"/"+copyNoteName); err != nil {
		return err
	}
	var keys []string
	for o, err := range b.List(ctx, folder+"/") {
		if err != nil {
			return err
		}
		keys = append(keys, o.Key)
	}
	return b.Delete(ctx, keys...)
}

// cutRow is the row that ends what the history told before a copy: keys that the copy does not bring are gone. It belongs to
// the caller.
func (h *historyTable) cutRow(position change.LSN) arrow.RecordBatch {
	columns := make([]arrow.Array, len(h.fields))
	for i, f := range h.fields {
		columns[i] = array.MakeArrayOfNull(memory.DefaultAllocator, f.Type, 1)
	}
	defer release(columns)
	row := array.NewRecordBatch(arrow.NewSchema(h.fields, nil), columns, 1)
	defer row.Release()
	return h.compose(columns, snapshotRows(row, change.OpTrunc, position, -1, time.Now().UnixMicro()), nil)
}
