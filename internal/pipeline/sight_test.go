package pipeline

import (
	"testing"

	"github.com/leatdata/leat/internal/postgres"
)

// Two looks may end before the loop takes what they have found. A claim that the first has judged is known to it alone.
func TestWhatALookHasJudgedOutlivesTheNextLook(t *testing.T) {
	t.Parallel()
	r := &run{}
	r.show(&sighted{judged: map[uint32]postgres.Claim{1: {XIDs: []uint32{7}}, 2: {XIDs: []uint32{8}}}, horizon: 1})
	r.show(&sighted{judged: map[uint32]postgres.Claim{2: {XIDs: []uint32{8, 9}}}, horizon: 2})
	s := r.sighted.Swap(nil)
	if len(s.judged) != 2 || len(s.judged[1].XIDs) != 1 || len(s.judged[2].XIDs) != 2 || s.horizon != 2 {
		t.Errorf("the loop takes %+v", s)
	}
	r.show(&sighted{horizon: 3})
	if s = r.sighted.Swap(nil); len(s.judged) != 0 || s.horizon != 3 {
		t.Errorf("what was taken comes again: %+v", s)
	}
}

// The looks of one start may find a TRUNCATE and a definition apart. That the WAL has told the one says nothing of the other.
func TestWhatTwoLooksOfAStartHaveFoundIsAllToBeTold(t *testing.T) {
	t.Parallel()
	truncated, altered := postgres.Doubt{Table: 1, Truncated: []uint32{7}}, postgres.Doubt{Table: 1, Altered: true}
	for name, c := range map[string]struct {
		looks              [2]postgres.Doubt
		truncated          int
		redefined, altered bool
	}{
		"a TRUNCATE and a definition": {[2]postgres.Doubt{truncated, altered}, 1, true, false},
		"a definition and a TRUNCATE": {[2]postgres.Doubt{altered, truncated}, 1, true, false},
		"two TRUNCATEs":               {[2]postgres.Doubt{truncated, truncated}, 2, false, false},
		"two definitions":             {[2]postgres.Doubt{altered, altered}, 0, false, true},
	} {
		r := &run{byOID: map[uint32]*table{1: {name: "public.t"}}, pending: map[uint32]pendingDoubt{}}
		for _, d := range c.looks {
			r.doubt(postgres.Sight{Doubts: []postgres.Doubt{d}}, &again{})
		}
		if p := r.pending[1]; len(p.Truncated) != c.truncated || p.Redefined != c.redefined || p.Altered != c.altered {
			t.Errorf("%s: to be told is %+v", name, p.Doubt)
		}
	}
}
