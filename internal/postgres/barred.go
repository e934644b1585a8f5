package postgres

import (
	"context"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Barred says which of the tables cannot be followed by this role and publication, and why, by OID: the role may not read them, or
// the publication lacks them and cannot be given them. What it asks for is what EnsurePublication and a copy would fail of.
func (s *Source) Barred(ctx context.Context, o PublicationOptions) (map[uint32]string, error) {
	own := !o.Given && !s.InRecovery
	c, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	defer leave(c)
	have, err := s.publication(ctx, c, o.Name)
	if err != nil {
		return nil, err
	}
	lacking := map[uint32]bool{}
	if !have.allTables {
		members, err := s.publishedTables(ctx, c, o)
		if err != nil {
			return nil, err
		}
		o.Given = true // whatever it gives of them, it has them
		add, _, err := s.publicationDifference(ctx, c, members, o)
		if err != nil {
			return nil, err
		}
		for _, t := range add {
			lacking[t.OID] = true
		}
	}
	oids := map[uint32]bool{}
	barred := map[uint32]string{}
	for _, t := range o.Tables {
		oids[t.OID] = true
		if err := s.publishable(PublicationOptions{Tables: []*change.Table{t}, InsertsOnly: true}); err != nil {
			barred[t.OID] = fault.Of(err).What
		}
		if !own && have.exists && o.ViaRoot && !have.viaRoot && partitioned(t) {
			barred[t.OID] = "the publication does not publish the changes of partitions under their root's name (publish_via_partition_root)"
		}
	}
	rows, err := query(ctx, c, `
select c.oid, has_schema_privilege(c.relnamespace, 'usage') and has_table_privilege(c.oid, 'select'), pg_has_role(c.relowner, 'usage')
from pg_class c where c.oid = any($1::oid[])`, oidArray(oids))
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read what the role may do")
	}
	for _, r := range rows {
		switch t := oid(r[0]); {
		case string(r[1]) != "t":
			barred[t] = "the role may not read it"
		case lacking[t] && !own:
			barred[t] = "the publication lacks it"
		case lacking[t] && string(r[2]) != "t":
			barred[t] = "the role does not own it, so it cannot add it to the publication"
		}
	}
	return barred, nil
}
