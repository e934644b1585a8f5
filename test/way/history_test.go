package way_test

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// event is a row of a history table.
type event struct {
	op        string
	lsn, seq  int64
	unchanged []string // columns whose value the log left out
	row       []string // the followed columns
}

// events reads a history as its columns say, in the order of the log.
func events(t testing.TB, f followed, names []string, all [][]string) []event {
	t.Helper()
	system := []string{"_leat_op", "_leat_lsn", "_leat_seq", "_leat_unchanged"}
	var out []event
	for _, r := range pick(t, f.String()+"'s history", names, all, append(system, f.columns...)) {
		e := event{op: r[0], row: r[len(system):]}
		var err1, err2, err3 error
		e.lsn, err1 = strconv.ParseInt(r[1], 10, 64)
		e.seq, err2 = strconv.ParseInt(r[2], 10, 64)
		if r[3] != testlab.Null {
			err3 = json.Unmarshal([]byte(r[3]), &e.unchanged)
		}
		if err := cmp.Or(err1, err2, err3); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(a, b event) int { return cmp.Or(cmp.Compare(a.lsn, b.lsn), cmp.Compare(a.seq, b.seq)) })
	return out
}

// rebuilt is the table as its history tells it was at a position.
func (f followed) rebuilt(history []event, at int64) rows {
	if f.key == nil {
		return f.rebuiltWithoutKey(history, at)
	}
	state := map[string][]string{}
	for _, e := range history {
		if e.lsn >= at {
			break
		}
		key := f.keyOf(e.row)
		switch e.op {
		case "t":
			clear(state)
		case "d":
			delete(state, key)
		default:
			for _, name := range e.unchanged {
				i := slices.Index(f.columns, name)
				if before, known := state[key]; known {
					e.row[i] = before[i]
				}
			}
			state[key] = e.row
		}
	}
	var all [][]string
	for _, r := range state {
		all = append(all, r)
	}
	return sorted(all)
}

func (f followed) keyOf(row []string) string {
	var b strings.Builder
	for _, k := range f.key {
		b.WriteString(strconv.Quote(row[slices.Index(f.columns, k)]))
	}
	return b.String()
}

// rebuiltWithoutKey counts equal rows. An update that changes the row is written as a 'd' of the old one, numbered one
// less, and a 'u'; an update without that 'd' has changed nothing.
func (f followed) rebuiltWithoutKey(history []event, at int64) rows {
	count := map[string]int{}
	row := map[string][]string{}
	for i, e := range history {
		if e.lsn >= at {
			break
		}
		key := strings.Join(e.row, "\x00")
		row[key] = e.row
		switch e.op {
		case "t":
			clear(count)
		case "d":
			count[key]--
		case "u":
			if i > 0 && history[i-1].op == "d" && history[i-1].lsn == e.lsn && history[i-1].seq == e.seq-1 {
				count[key]++
			}
		default:
			count[key]++
		}
	}
	var all [][]string
	for key, n := range count {
		for range n {
			all = append(all, row[key])
		}
	}
	return sorted(all)
}
