package postgres

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// Claim is what messages of DDL events say of a table: for a time the WAL did not tell all of it. Anybody who may write messages can claim
// that, so it counts only where the catalog has rows that one of the transactions, or a later one, has written.
type Claim struct {
	XIDs      []uint32 // the transactions that claim it
	Because   string
	Published bool // see Doubt
}

// first is the transaction that began first. Numbers come again after four billions.
func (c Claim) first() uint32 {
	first := c.XIDs[0]
	for _, x := range c.XIDs {
		if int32(x-first) < 0 {
			first = x
		}
	}
	return first
}

// visible says whether what the transactions did is to be seen.
func (c Claim) visible(v visibility) bool {
	for _, x := range c.XIDs {
		if !v.sees(x) {
			return false
		}
	}
	return len(c.XIDs) > 0
}

// claimed judges a claim, beside what the facts say: that a table was not published counts more than anything else.
func (j *judge) claimed(ctx context.Context, t uint32, now Facts, d *Doubt) (*Doubt, error) {
	c := j.options.Claims[t]
	if d != nil && (d.Published || d.Certain() && !c.Published) {
		return d, nil
	}
	founded := now.writtenSince(c.first())
	if !founded {
		var err error
		if founded, err = j.indexWrittenSince(ctx, now, c.first()); err != nil {
			return d, err
		}
	}
	if !founded {
		return d, nil
	}
	return &Doubt{Table: t, Because: c.Because, Published: c.Published}, nil
}

// writtenSince says whether a row of the facts is of a transaction or of a later one.
func (f Facts) writtenSince(xid uint32) bool {
	since := func(x uint32) bool { return x != 0 && int32(x-xid) >= 0 }
	for _, r := range f.Relations {
		if since(r.Class) || since(r.Bond) {
			return true
		}
	}
	for row := range strings.FieldsFuncSeq(f.Publication+","+f.Member, func(r rune) bool { return r == ',' }) {
		if _, x, ok := strings.Cut(row, "/"); ok {
			for version := range strings.SplitSeq(x, "/") {
				if n, err := strconv.ParseUint(version, 10, 32); err == nil && since(uint32(n)) {
					return true
				}
			}
		}
	}
	return false
}

// indexWrittenSince asks the same of the indexes, one of which may be a replica identity.
func (j *judge) indexWrittenSince(ctx context.Context, now Facts, xid uint32) (bool, error) {
	oids := map[uint32]bool{}
	for oid := range now.Relations {
		oids[oid] = true
	}
	rows, err := query(ctx, j.conn, `
select exists (select from pg_catalog.pg_index i where i.indrelid = any($1::oid[]) and pg_catalog.age(i.xmin) <= pg_catalog.age($2::xid))`,
		oidArray(oids), fmt.Sprint(xid))
	if err != nil {
		return false, err
	}
	return string(rows[0][0]) == "t", nil
}
