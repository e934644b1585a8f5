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
