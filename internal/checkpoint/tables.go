package checkpoint

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// A save costs what has changed. Where a pipeline has many tables, an object of its own has all of them as they were at
// one moment, the base, and the state names it, with what has changed since. When that is much, another base is written
// first. So one conditional write decides about all of it, as for few tables.
const (
	baseFrom    = 256 // tables from which there is a base
	baseVersion = 2   // of states that name one: an older leat would take the tables for gone
	basePrefix  = "tables-"
	leastDelta  = 64 // changes that stand in the state at least before another base is due
	deltaShare  = 16 // the part of all tables that they may be
)

// head is state.json.
type head struct {
	State
	Base *baseRef `json:"base,omitempty"` // has the tables that State.Tables does not tell of; nil where it has all
	Gone []string `json:"gone,omitempty"` // tables of the base that there are no more
}

// baseRef names a base.
type baseRef struct {
	Key    string `json:"key"`
	SHA256 string `json:"sha256"` // of its bytes
}

// base is an object with tables. It is written once and never changed.
type base struct {
	Version int                   `json:"version"`
	Tables  map[string]TableState `json:"tables"`
}

// baseState is the base that the next state may name; the zero value is none.
type baseState struct {
	ref    *baseRef
	tables map[string]TableState // what it has; no other map shares it
}

// loaded is a state as it lies in the bucket.
type loaded struct {
	State
	base baseState
	etag string
}

// readHead reads the state without its base: the tables are not all there.
func readHead(ctx context.Context, b bucket.Bucket, prefix string) (head, string, error) {
	o, err := read(ctx, b, prefix+stateKey)
	if err != nil || o.etag == "" {
		return head{State: State{Version: Version}}, "", err
	}
	var h head
	if err := decodeUpTo(baseVersion, o.data, prefix+stateKey, &h); err != nil {
		return h, o.etag, err
	}
	if (h.Version == baseVersion) != (h.Base != nil) {
		return h, o.etag, fault.New(fault.StateUnusable, prefix+stateKey, "it has version %d, and names an object with tables: %t", h.Version, h.Base != nil)
	}
	return h, o.etag, nil
}

// readState reads the whole state. A base goes when another one has taken its place: then the state names that one.
func readState(ctx context.Context, b bucket.Bucket, prefix string) (loaded, error) {
	var missing string
	for attempt := range mostAttempts {
		if err := pauseBefore(ctx, attempt, prefix+stateKey); err != nil {
			return loaded{}, err
		}
		h, etag, err := readHead(ctx, b, prefix)
		if err != nil || h.Base == nil {
			return loaded{State: h.State, etag: etag}, err
		}
		tables, err := readBase(ctx, b, prefix, *h.Base)
		if fault.Is(err, fault.ObjectMissing) && missing != h.Base.Key {
			missing = h.Base.Key
			continue
		}
		if fault.Is(err, fault.ObjectMissing) {
			err = fault.New(fault.StateUnusable, prefix+h.Base.Key, "the part of the saved state that has the tables is missing").Because(err).
				WithMend("Restore it. Without it, remove %s: the next start copies all tables.", prefix+stateKey)
		}
		if err != nil {
			return loaded{}, err
		}
		s := h.State
		s.Version, s.Tables = Version, cloneAll(tables)
		for _, key := range h.Gone {
			delete(s.Tables, key)
		}
		maps.Copy(s.Tables, h.Tables)
		return loaded{State: s, base: baseState{h.Base, tables}, etag: etag}, nil
	}
	return loaded{}, fault.New(fault.BucketBusy, prefix+stateKey, "the state was another one at each of %d looks", mostAttempts)
}

func readBase(ctx context.Context, b bucket.Bucket, prefix string, ref baseRef) (map[string]TableState, error) {
	where := prefix + ref.Key
	if !strings.HasPrefix(ref.Key, basePrefix) || strings.Contains(ref.Key, "/") {
		return nil, fault.New(fault.StateUnusable, prefix+stateKey, "it names %q as the object with its tables", ref.Key)
	}
	data, err := bucket.ReadAll(ctx, b, where, maxObject)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != ref.SHA256 {
		return nil, fault.New(fault.StateUnusable, where, "its bytes are not those that were saved")
	}
	var have base
	return have.Tables, decode(data, where, &have)
}

// compose is what lies in state.json for a state. It writes a base where one is due; saving is held.
func (s *Store) compose(ctx context.Context, state State) (head, error) {
	h := head{State: state}
	if len(state.Tables) < baseFrom {
		s.replaceBase(baseState{})
		return h, nil
	}
	changed, gone := s.base.since(state.Tables)
	if s.base.ref == nil || len(changed)+len(gone) > max(leastDelta, len(state.Tables)/deltaShare) {
		if err := s.writeBase(ctx, state.Tables); err != nil {
			return h, err
		}
		changed, gone = nil, nil
	}
	h.Version, h.Base, h.Tables, h.Gone = baseVersion, s.base.ref, changed, gone
	return h, nil
}

// since is what tables have beyond the base.
func (b baseState) since(tables map[string]TableState) (changed map[string]TableState, gone []string) {
	changed = map[string]TableState{}
	for key, t := range tables {
		if was, there := b.tables[key]; !there || !t.equal(was) {
			changed[key] = t
		}
	}
	for key := range b.tables {
		if _, there := tables[key]; !there {
			gone = append(gone, key)
		}
	}
	slices.Sort(gone)
	return changed, gone
}

func (s *Store) writeBase(ctx context.Context, tables map[string]TableState) error {
	next := baseState{ref: &baseRef{Key: basePrefix + rand.Text() + ".json"}, tables: cloneAll(tables)}
	data, err := json.Marshal(base{Version: Version, Tables: next.tables})
	if err != nil {
		return fault.Wrap(err, fault.Internal, s.prefix+next.ref.Key, "cannot be written as JSON")
	}
	sum := sha256.Sum256(data)
	next.ref.SHA256 = hex.EncodeToString(sum[:])
	if _, err := bucket.WriteAll(ctx, s.bucket, s.prefix+next.ref.Key, data, bucket.WriteOptions{ContentType: "application/json"}); err != nil {
		return err
	}
	s.replaceBase(next)
	return nil
}

func (s *Store) replaceBase(next baseState) {
	if s.base.ref != nil {
		s.formerBases = append(s.formerBases, s.base.ref.Key)
	}
	s.base = next
}

// dropBases removes bases that no state names any more, but for the last: who has just read the state may still read
// it.
func (s *Store) dropBases(ctx context.Context) {
	for ; len(s.formerBases) > 1; s.formerBases = s.formerBases[1:] {
		if err := s.bucket.Delete(ctx, s.prefix+s.formerBases[0]); err != nil {
			s.o.Log.Debug("a former object with tables stays until the next start", "key", s.formerBases[0], "error", err)
		}
	}
}

// sweepBases removes bases that the state does not name, of owners that died between the two writes. The state is ours
// by now, and what is listed while the lease is ours too cannot be a later owner's. Where writes have no condition a
// former owner's may still come late and name a base that no other state does: there all stay.
func (s *Store) sweepBases(ctx context.Context) {
	if !s.fenced {
		return
	}
	named := ""
	if s.base.ref != nil {
		named = s.prefix + s.base.ref.Key
	}
	var former []string
	err := func() error {
		for o, err := range s.bucket.List(ctx, s.prefix+basePrefix) {
			if err != nil {
				return err
			}
			if o.Key != named {
				former = append(former, o.Key)
			}
		}
		held, err := readLease(ctx, s.bucket, s.prefix)
		if err != nil || held.Owner != s.lease.Owner || held.Epoch != s.lease.Epoch {
			return err
		}
		return s.bucket.Delete(ctx, former...)
	}()
	if err != nil {
		s.o.Log.Debug("former objects with tables stay until the next start", "error", err)
	}
}

// equal says whether both would be saved alike.
func (t TableState) equal(o TableState) bool {
	return t.Schema == o.Schema && t.Table == o.Table && t.Phase == o.Phase && t.OID == o.OID && t.Since == o.Since && t.Upper == o.Upper && t.Lower == o.Lower &&
		t.Anew == o.Anew && t.Exact == o.Exact && t.Late == o.Late && t.Renumbered == o.Renumbered && t.Published == o.Published &&
		(t.Leaves == nil) == (o.Leaves == nil) && slices.Equal(t.Leaves, o.Leaves) && slices.Equal(t.LeftOut, o.LeftOut) && t.Special == o.Special &&
		slices.Equal(t.Former, o.Former) && t.Facts == o.Facts && t.Claim.equal(o.Claim) && slices.Equal(t.Truncated, o.Truncated) &&
		t.Tended.Equal(o.Tended) && t.Untended == o.Untended && t.Foreign == o.Foreign && t.Recopied.Equal(o.Recopied) && t.Every == o.Every
}

func (c *Claim) equal(o *Claim) bool {
	if c == nil || o == nil {
		return c == o
	}
	return slices.Equal(c.XIDs, o.XIDs) && c.At == o.At && c.Because == o.Because && c.Published == o.Published
}

func cloneAll(tables map[string]TableState) map[string]TableState {
	all := make(map[string]TableState, len(tables))
	for key, t := range tables {
		all[key] = t.clone()
	}
	return all
}

// clone shares nothing with t.
func (t TableState) clone() TableState {
	t.Leaves, t.LeftOut, t.Former, t.Truncated = slices.Clone(t.Leaves), slices.Clone(t.LeftOut), slices.Clone(t.Former), slices.Clone(t.Truncated)
	if t.Claim != nil {
		c := *t.Claim
		c.XIDs = slices.Clone(c.XIDs)
		t.Claim = &c
	}
	return t
}
