package postgres

import (
	"context"
	"fmt"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
)

// Barred says which of the tables cannot be followed by this role and publication, and why, by OID: the role may not read them
// (source-rights), or the publication lacks them and cannot be given them (publication-unusable). What it asks for is what
// EnsurePublication and a copy would fail of.
func (s *Source) Barred(ctx context.Context, o PublicationOptions) (map[uint32]error, error) {
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
	barred := map[uint32]error{}
	names := map[uint32]string{}
	unusable := func(t uint32, what, mend string) error {
		return fault.New(fault.PublicationUnusable, names[t], "%s", what).WithMend("%s", mend)
	}
	for _, t := range o.Tables {
		oids[t.OID], names[t.OID] = true, t.String()
		if err := s.publishable(PublicationOptions{Tables: []*change.Table{t}, InsertsOnly: true}); err != nil {
			barred[t.OID] = err
		}
		if !own && have.exists && o.ViaRoot && !have.viaRoot && partitioned(t) {
			barred[t.OID] = unusable(t.OID, "the publication does not publish the changes of partitions under their root's name (publish_via_partition_root)",
				fmt.Sprintf("Run: alter publication %s set (publish_via_partition_root = true);", quoteIdent(o.Name)))
		}
	}
	rows, err := query(ctx, c, `
select c.oid, has_schema_privilege(c.relnamespace, 'usage') and has_any_column_privilege(c.oid, 'select'), pg_has_role(c.relowner, 'usage'),
       row_security_active(c.oid), format('%I.%I', n.nspname, c.relname), quote_ident(current_user)
from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.oid = any($1::oid[])`, oidArray(oids))
	if err != nil {
		return nil, classify(ctx, err, s.Name, "cannot read what the role may do")
	}
	for _, r := range rows {
		switch t := oid(r[0]); {
		case string(r[1]) != "t":
			barred[t] = fault.New(fault.SourceRights, names[t], "the role may not read it").WithMend("Run: grant select on %s to %s;", r[4], r[5])
		case string(r[3]) == "t":
			barred[t] = fault.New(fault.SourceRights, names[t], "row-level security would hide rows from the role").WithMend("Run: alter role %s bypassrls;", r[5])
		case lacking[t] && !own:
			barred[t] = unusable(t, "the publication lacks it", fmt.Sprintf("Run: alter publication %s add table only %s;", quoteIdent(o.Name), r[4]))
		case lacking[t] && string(r[2]) != "t":
			barred[t] = unusable(t, "the role does not own it, so it cannot add it to the publication",
				fmt.Sprintf("Run as its owner: alter publication %s add table only %s;", quoteIdent(o.Name), r[4]))
		}
	}
	return barred, nil
}
