package checkpoint_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
)

// metered counts what is written, and refuses a write of choice.
type metered struct {
	bucket.Bucket
	bytes, writes atomic.Int64
	refuse        func(key string) bool // nil refuses none
	lists         func(prefix string)   // before a list; nil for nothing
}

func (m *metered) List(ctx context.Context, prefix string) iter.Seq2[bucket.Object, error] {
	if m.lists != nil {
		m.lists(prefix)
	}
	return m.Bucket.List(ctx, prefix)
}

func (m *metered) Create(ctx context.Context, key string, o bucket.WriteOptions) (bucket.Upload, error) {
	if m.refuse != nil && m.refuse(key) {
		return nil, fault.New(fault.BucketUnreachable, key, "no write")
	}
	m.writes.Add(1)
	u, err := m.Bucket.Create(ctx, key, o)
	return meteredUpload{u, m}, err
}

type meteredUpload struct {
	bucket.Upload
	m *metered
}

func (u meteredUpload) Write(p []byte) (int, error) {
	u.m.bytes.Add(int64(len(p)))
	return u.Upload.Write(p)
}

func (m *metered) took() (writes, bytes int64) { return m.writes.Swap(0), m.bytes.Swap(0) }

// asJSON is a state's tables as they are saved.
func asJSON(t *testing.T, tables map[string]checkpoint.TableState) string {
	t.Helper()
	data, err := json.Marshal(tables)
	must(t, err)
	return string(data)
}

func keys(t *testing.T, b bucket.Bucket, prefix string) (found []string) {
	t.Helper()
	for o, err := range b.List(t.Context(), prefix) {
		must(t, err)
		found = append(found, o.Key)
	}
	return found
}

// A pipeline of thousands of tables of which some are busy must not write thousands at each commit.
func TestASaveOfManyTablesCostsWhatHasChanged(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		m := &metered{Bucket: b}
		s := open(t, m, checkpoint.Options{TTL: time.Minute})
		state := checkpoint.State{Tables: manyTables(3000)}
		must(t, s.Save(t.Context(), state))
		_, whole := m.took()
		for i := range 100 {
			for k := range 30 {
				was := state.Tables[fmt.Sprintf("public.table_%d", k)]
				was.Tended = was.Tended.Add(time.Minute)
				was.Truncated = append(was.Truncated, uint32(i))
				state.Tables[fmt.Sprintf("public.table_%d", k)] = was
			}
			must(t, s.Save(t.Context(), state))
		}
		if writes, bytes := m.took(); writes > 105 || bytes > 100*whole/20 { // besides some renewals of the lease
			t.Errorf("100 saves take %d writes and %d bytes; one whole state takes %d", writes, bytes, whole)
		}
		read, _, err := checkpoint.Read(t.Context(), b, "p")
		must(t, err)
		if asJSON(t, read.Tables) != asJSON(t, state.Tables) {
			t.Error("what is read is not what was saved")
		}
		must(t, s.Save(t.Context(), checkpoint.State{Tables: manyTables(3)}))
		must(t, s.Save(t.Context(), checkpoint.State{Tables: manyTables(3)}))
		data, err := bucket.ReadAll(t.Context(), b, "p/state.json", 1<<20)
		must(t, err)
		if !strings.Contains(string(data), `"version": 1,`) || strings.Contains(string(data), `"base"`) {
			t.Errorf("a state of few tables is %s", data)
		}
	})
}

// At any moment what is read is what was saved last, also after a process that died between two writes, for any number
// of tables.
func TestTablesThatComeChangeAndGoAreReadAsTheyWereSaved(t *testing.T) {
	t.Parallel()
	b := memory(t)
	random := rand.New(rand.NewPCG(1, 2))
	m := &metered{Bucket: b}
	s := open(t, m, checkpoint.Options{TTL: time.Hour, Self: "us-"})
	state := checkpoint.State{Tables: map[string]checkpoint.TableState{}}
	saved := asJSON(t, state.Tables)
	next := 0
	for step := range 150 {
		for range random.IntN(40) {
			name := fmt.Sprintf("public.t%d", next)
			next++
			state.Tables[name] = checkpoint.TableState{Phase: checkpoint.Copying, OID: uint32(next), Leaves: []uint32{}, Claim: &checkpoint.Claim{XIDs: []uint32{1}}}
		}
		names := slices.Sorted(maps.Keys(state.Tables))
		for _, name := range names {
			switch was := state.Tables[name]; random.IntN(20) {
			case 0:
				was.Phase, was.Since = checkpoint.Streaming, was.Since+1
				state.Tables[name] = was
			case 1:
				if was.Claim != nil { // in place
					was.Claim.XIDs[0]++
				}
			case 2:
				if step%10 > 4 {
					delete(state.Tables, name)
				}
			}
		}
		if step%50 == 49 {
			clear(state.Tables)
		}
		var fails string // the object that cannot be written
		if random.IntN(4) == 0 {
			fails = []string{"p/tables-", "p/state.json"}[random.IntN(2)]
		}
		m.refuse = func(key string) bool { return fails != "" && strings.HasPrefix(key, fails) }
		if err := s.Save(t.Context(), state); err == nil {
			saved = asJSON(t, state.Tables)
		}
		m.refuse = nil
		read, _, err := checkpoint.Read(t.Context(), b, "p")
		must(t, err)
		if got := asJSON(t, read.Tables); got != saved && len(read.Tables)+len(saved) > len("{}") {
			t.Fatalf("step %d: read are %d tables, want %d: %s", step, len(read.Tables), strings.Count(saved, "phase"), got[:min(len(got), 200)])
		}
		if step%20 == 19 { // another process
			s = open(t, m, checkpoint.Options{TTL: time.Hour, Self: "us-"})
			state.Tables = s.State().Tables
			if got := asJSON(t, state.Tables); got != saved && len(state.Tables)+len(saved) > len("{}") {
				t.Fatalf("step %d: the next process has %d tables", step, len(state.Tables))
			}
			if state.Tables == nil {
				state.Tables = map[string]checkpoint.TableState{}
			}
			if left := keys(t, b, "p/tables-"); len(left) > 1 {
				t.Errorf("step %d: objects with tables are left: %v", step, left)
			}
		}
		if there := keys(t, b, "p/tables-"); len(there) > 4 {
			t.Errorf("step %d: there are %v", step, there)
		}
	}
}

// A state that a leat of before has written has all tables in it, however many.
func TestAWholeStateOfManyTablesIsContinued(t *testing.T) {
	everywhere(t, func(t *testing.T, b bucket.Bucket) {
		old := checkpoint.State{Version: 1, Epoch: 7, Owner: "before", Position: 42, Tables: manyTables(400)}
		data, err := json.MarshalIndent(old, "", "  ")
		must(t, err)
		_, err = bucket.WriteAll(t.Context(), b, "p/state.json", data, bucket.WriteOptions{})
		must(t, err)
		s := open(t, b, checkpoint.Options{})
		if got := s.State(); got.Position != 42 || s.Epoch() != 8 || asJSON(t, got.Tables) != asJSON(t, old.Tables) {
			t.Errorf("epoch %d, position %s, %d tables", s.Epoch(), got.Position, len(got.Tables))
		}
		read, _, err := checkpoint.Read(t.Context(), b, "p")
		if err != nil || read.Version != checkpoint.Version || asJSON(t, read.Tables) != asJSON(t, old.Tables) {
			t.Errorf("%d tables, %v", len(read.Tables), err)
		}
	})
}

func TestAStateWhoseTablesAreNotThoseThatWereSavedIsUnusable(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, b bucket.Bucket, key string){
		"missing": func(t *testing.T, b bucket.Bucket, key string) { must(t, b.Delete(t.Context(), key)) },
		"cut": func(t *testing.T, b bucket.Bucket, key string) {
			data, err := bucket.ReadAll(t.Context(), b, key, 1<<20)
			must(t, err)
			_, err = bucket.WriteAll(t.Context(), b, key, data[:len(data)/2], bucket.WriteOptions{})
			must(t, err)
		},
		"another's": func(t *testing.T, b bucket.Bucket, key string) {
			_, err := bucket.WriteAll(t.Context(), b, key, []byte(`{"version":1,"tables":{}}`), bucket.WriteOptions{})
			must(t, err)
		},
		"of another place": func(t *testing.T, b bucket.Bucket, key string) {
			data, err := bucket.ReadAll(t.Context(), b, "p/state.json", 1<<20)
			must(t, err)
			away := strings.Replace(string(data), strings.TrimPrefix(key, "p/"), "../q/state.json", 1)
			_, err = bucket.WriteAll(t.Context(), b, "p/state.json", []byte(away), bucket.WriteOptions{})
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := memory(t)
			s := open(t, b, checkpoint.Options{})
			must(t, s.Save(t.Context(), checkpoint.State{Tables: manyTables(300)}))
			s.Close(t.Context())
			there := keys(t, b, "p/tables-")
			if len(there) != 1 {
				t.Fatal(there)
			}
			spoil(t, b, there[0])
			before, err := bucket.ReadAll(t.Context(), b, "p/state.json", 1<<20)
			must(t, err)
			if _, err := checkpoint.Open(t.Context(), b, "p", checkpoint.Options{}); !fault.Is(err, fault.StateUnusable) {
				t.Errorf("it is opened: %v", err)
			}
			if _, _, err := checkpoint.Read(t.Context(), b, "p"); !fault.Is(err, fault.StateUnusable) {
				t.Errorf("it is read: %v", err)
			}
			if after, err := bucket.ReadAll(t.Context(), b, "p/state.json", 1<<20); err != nil || string(after) != string(before) {
				t.Errorf("it was written: %v", err)
			}
		})
	}
}

// A field that is not compared would be saved with the next base alone.
func TestEveryFieldOfATableIsSavedWhenItChanges(t *testing.T) {
	t.Parallel()
	b := memory(t)
	s := open(t, b, checkpoint.Options{TTL: time.Minute})
	state := checkpoint.State{Tables: manyTables(300)}
	must(t, s.Save(t.Context(), state))
	fields := reflect.TypeFor[checkpoint.TableState]()
	for i := range fields.NumField() {
		name := fmt.Sprintf("public.table_%d", i) // one that has not changed otherwise
		was := state.Tables[name]
		f := reflect.ValueOf(&was).Elem().Field(i)
		switch v := f.Interface().(type) {
		case string:
			f.SetString(v + "x")
		case checkpoint.Phase:
			f.SetString("copying")
		case bool:
			f.SetBool(!v)
		case []uint32:
			f.Set(reflect.ValueOf([]uint32{9}))
		case []int16:
			f.Set(reflect.ValueOf([]int16{9}))
		case time.Time:
			f.Set(reflect.ValueOf(v.Add(time.Hour)))
		case *checkpoint.Claim:
			f.Set(reflect.ValueOf(&checkpoint.Claim{Because: "x"}))
		default:
			if f.CanUint() {
				f.SetUint(f.Uint() + 1)
			} else {
				f.SetInt(f.Int() + 1)
			}
		}
		state.Tables[name] = was
		must(t, s.Save(t.Context(), state))
		read, _, err := checkpoint.Read(t.Context(), b, "p")
		must(t, err)
		if asJSON(t, read.Tables) != asJSON(t, state.Tables) {
			t.Errorf("%s is saved as %+v, want %+v", fields.Field(i).Name, read.Tables[name], was)
		}
	}
}

// A process that sleeps while it takes a pipeline over wakes when it belongs to another one, whose objects it must
// leave alone.
func TestAnOwnerThatSleptLeavesTheTablesOfTheNextOne(t *testing.T) {
	t.Parallel()
	b := memory(t)
	open(t, b, checkpoint.Options{TTL: time.Hour, Self: "us-"}).Close(t.Context())
	state := checkpoint.State{Tables: manyTables(300)}
	slept := &metered{Bucket: b}
	slept.lists = func(prefix string) {
		if prefix != "p/tables-" {
			return
		}
		slept.lists = nil
		next := open(t, b, checkpoint.Options{TTL: time.Hour, Self: "us-"})
		must(t, next.Save(t.Context(), state))
	}
	open(t, slept, checkpoint.Options{TTL: time.Hour, Self: "us-"})
	if slept.lists != nil {
		t.Fatal("it has not looked for former objects: the test proves nothing")
	}
	read, _, err := checkpoint.Read(t.Context(), b, "p")
	must(t, err)
	if asJSON(t, read.Tables) != asJSON(t, state.Tables) {
		t.Errorf("%d tables are read", len(read.Tables))
	}
}
