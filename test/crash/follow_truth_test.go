package crash_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/testlab"
)

// truth is every committed transaction in commit order, by PostgreSQL's own test_decoding, which shares nothing with
// pgoutput or with our decoders.
type truth struct {
	db          *testlab.DB
	slot        string
	txs         []truthTx
	definitions map[string]*definition // of each table, as far as was heard
	alterations int
}

type truthTx struct {
	xid uint32
	end change.LSN // of the commit record
	ops []truthOp
}

// truthOp is one change of one row; a TRUNCATE of several tables is several.
type truthOp struct {
	table    string
	op       byte // i, u, d, t
	old, new tuple
	names    *definition // what its columns' names meant
}

// tuple is a row or its key, by column. unchangedToast stands for a value that the log leaves out.
type tuple map[string]*string

var unchangedToast = new(string)

// beginTruth begins to listen: whatever commits from now on is known.
func beginTruth(db *testlab.DB) *truth {
	h := &truth{db: db, slot: "truth_" + db.Name, definitions: map[string]*definition{}}
	db.Exec("select pg_create_logical_replication_slot('" + h.slot + "', 'test_decoding')")
	return h
}

// hear takes what has been committed since the last time.
func (h *truth) hear(t testing.TB) {
	t.Helper()
	h.db.Exec("set timezone = 'UTC'")
	rows := h.db.Query("select lsn, xid, data from pg_logical_slot_get_changes('" + h.slot + "', null, null, 'include-xids', '0', 'skip-empty-xacts', '1')")
	var tx truthTx
	for _, row := range rows {
		switch data := row[2]; {
		case data == "BEGIN":
			tx = truthTx{}
		case strings.HasPrefix(data, "message:"): // leat's own heartbeat
		case data == "COMMIT":
			// The position beside COMMIT is the end of its record; see commits.
			tx.end = lsnOf(t, row[0])
			xid, err := strconv.ParseUint(row[1], 10, 32)
			if err != nil {
				t.Fatal(err)
			}
			tx.xid = uint32(xid)
			h.txs = append(h.txs, tx)
		default:
			ops, err := parseDecoded(data)
			if err {
				t.Fatalf("test_decoding says what the judge does not understand: %.300s", data)
			}
			for _, op := range ops {
				if op.table == "back.definitions" {
					h.defined(t, op.new)
					continue
				}
				op.names = h.definitions[op.table]
				tx.ops = append(tx.ops, op)
			}
		}
	}
}

func lsnOf(t testing.TB, text string) change.LSN {
	t.Helper()
	lsn, err := change.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// parseDecoded reads "table public.a: UPDATE: old-key: id[bigint]:1 new-tuple: id[bigint]:2 v[text]:'x'".
func parseDecoded(data string) (ops []truthOp, bad bool) {
	rest, ok := strings.CutPrefix(data, "table ")
	if !ok {
		return nil, true
	}
	names, rest, ok := strings.Cut(rest, ": ")
	if !ok {
		return nil, true
	}
	what, rest, _ := strings.Cut(rest, ":")
	rest = strings.TrimPrefix(rest, " ")
	if what == "TRUNCATE" {
		for name := range strings.SplitSeq(names, ", ") {
			ops = append(ops, truthOp{table: unquoted(name), op: 't'})
		}
		return ops, false
	}
	o := truthOp{table: unquoted(names)}
	switch what {
	case "INSERT":
		o.op = 'i'
		o.new, rest = parseTuple(rest)
	case "DELETE":
		o.op = 'd'
		o.old, rest = parseTuple(rest)
	case "UPDATE":
		o.op = 'u'
		if after, ok := strings.CutPrefix(rest, "old-key: "); ok {
			o.old, rest = parseTuple(after)
			rest = strings.TrimPrefix(rest, "new-tuple: ")
		}
		o.new, rest = parseTuple(rest)
	default:
		return nil, true
	}
	return []truthOp{o}, rest != ""
}

// unquoted takes the quotes off the identifiers of "schema"."table".
func unquoted(name string) string { return strings.ReplaceAll(name, `"`, "") }

// parseTuple reads columns until something else comes.
func parseTuple(s string) (tuple, string) {
	row := tuple{}
	for s != "" && !strings.HasPrefix(s, "new-tuple: ") {
		open := strings.IndexByte(s, '[')
		end := strings.Index(s, "]:")
		if open < 0 || end < open {
			return row, s
		}
		name, kind := unquoted(s[:open]), s[open+1:end]
		s = s[end+2:]
		var value string
		quoted := strings.HasPrefix(s, "'")
		if quoted {
			value, s = parseQuoted(s)
		} else {
			value, s, _ = strings.Cut(s, " ")
			if kind == "boolean" && value != "null" {
				value = value[:1] // as PostgreSQL writes it elsewhere
			}
		}
		switch {
		case !quoted && value == "null":
			row[name] = nil
		case !quoted && value == "unchanged-toast-datum":
			row[name] = unchangedToast
		default:
			row[name] = kept(value)
		}
	}
	return row, s
}

// parseQuoted reads a literal in which only quotes are doubled, and the space behind it.
func parseQuoted(s string) (value, rest string) {
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			i++
			continue
		}
		return strings.ReplaceAll(s[1:i], "''", "'"), strings.TrimPrefix(s[i+1:], " ")
	}
	return s, ""
}
