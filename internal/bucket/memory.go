package bucket

import (
	"bytes"
	"context"
	"io"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

// memory keeps objects in this process: for tests and for trying things out.
type memory struct {
	mu      sync.Mutex
	objects map[string]memoryObject
	serial  int // makes ETags
}

type memoryObject struct {
	Object
	data []byte
}

func newMemory() *memory { return &memory{objects: map[string]memoryObject{}} }

func memoryURL(key string) string { return place{kind: KindMemory}.object(key) }

func (m *memory) Create(ctx context.Context, key string, opts WriteOptions) (Upload, error) {
	if ctx.Err() != nil {
		return nil, interrupted(ctx, memoryURL(key))
	}
	return &memoryUpload{store: m, ctx: ctx, key: key, opts: opts}, nil
}

type memoryUpload struct {
	store *memory
	ctx   context.Context
	key   string
	opts  WriteOptions
	data  bytes.Buffer
	over  bool
}

func (u *memoryUpload) Write(p []byte) (int, error) {
	switch {
	case u.over:
		return 0, errOver(memoryURL(u.key))
	case u.ctx.Err() != nil:
		return 0, interrupted(u.ctx, memoryURL(u.key))
	}
	return u.data.Write(p)
}

func (u *memoryUpload) Commit(ctx context.Context) (Object, error) {
	if u.over {
		return Object{}, errOver(memoryURL(u.key))
	}
	u.over = true
	for _, c := range []context.Context{ctx, u.ctx} {
		if c.Err() != nil {
			return Object{}, interrupted(c, memoryURL(u.key))
		}
	}
	return u.store.put(u.key, u.data.Bytes(), u.opts)
}

func (u *memoryUpload) Abort() { u.over = true }

func (m *memory) put(key string, data []byte, opts WriteOptions) (Object, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if old, found := m.objects[key]; !opts.holds(found, old.ETag) {
		return Object{}, conditionFailed(memoryURL(key), opts)
	}
	m.serial++
	o := Object{
		Key: key, Size: int64(len(data)), ETag: strconv.Itoa(m.serial),
		Modified: time.Now(), ContentType: opts.ContentType, Metadata: maps.Clone(opts.Metadata),
	}
	m.objects[key] = memoryObject{o, data}
	return o, nil
}

func (m *memory) find(ctx context.Context, key string) (memoryObject, error) {
	if ctx.Err() != nil {
		return memoryObject{}, interrupted(ctx, memoryURL(key))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	o, found := m.objects[key]
	if !found {
		return o, fault.New(fault.ObjectMissing, memoryURL(key), "there is no such object")
	}
	return o, nil
}

func (m *memory) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := m.find(ctx, key)
	if err != nil {
		return nil, err
	}
	data := o.data[min(offset, o.Size):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return io.NopCloser(bytes.NewReader(data)), nil
}

func (m *memory) Stat(ctx context.Context, key string) (Object, error) {
	o, err := m.find(ctx, key)
	o.Metadata = maps.Clone(o.Metadata)
	return o.Object, err
}

func (m *memory) List(ctx context.Context, prefix string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		m.mu.Lock()
		keys := slices.Sorted(maps.Keys(m.objects))
		m.mu.Unlock()
		for _, key := range keys {
			if !strings.HasPrefix(key, prefix) {
				continue
			}
			o, err := m.find(ctx, key)
			if fault.Is(err, fault.ObjectMissing) {
				continue // deleted since we looked
			}
			o.Metadata = nil
			if !yield(o.Object, err) || err != nil {
				return
			}
		}
	}
}

func (m *memory) Delete(ctx context.Context, keys ...string) error {
	if ctx.Err() != nil {
		return interrupted(ctx, memoryURL(""))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.objects, key)
	}
	return nil
}

// Sweep has nothing to do: an upload that nobody holds is gone already.
func (m *memory) Sweep(context.Context, string, time.Time) (int, error) { return 0, nil }

func (m *memory) Properties() Properties {
	return Properties{Kind: KindMemory, URL: "mem://", ConditionalPut: Supported, ConditionalMultipart: Supported}
}

func (m *memory) Close() error { return nil }
