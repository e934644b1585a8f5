package pipeline

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// Check looks at the source as a run would that begins now: which tables it would follow and how, whether the publications can be had,
// and whether the slot is its own. It takes back what it tries, and neither needs the pipeline's lease nor reads its state. Rights and
// types are postgres.Preflight's. The error tells that it could not look.
func Check(ctx context.Context, source *postgres.Source, o Options) ([]fault.Finding, error) {
	o.Log = slog.New(slog.DiscardHandler) // what a run would say of its tables are findings here
	c := &checker{run: &run{o: o, source: source}}
	for _, look := range []func(context.Context) error{c.replication, c.chosen, c.publishable, c.slot} {
		if err := look(ctx); err != nil {
			return c.findings, err
		}
	}
	return c.findings, nil
}

type checker struct {
	*run
	full, inserts []*change.Table
	told          bool // why tables are not among them
	findings      []fault.Finding
}

func (c *checker) add(code string, severity fault.Severity, where, mend, what string) {
	c.findings = append(c.findings, fault.Finding{Code: code, Severity: severity, Where: where, What: what, Mend: mend})
}

// replication opens a connection of the kind that reads the log: a pooler may have none, or all walsenders may be taken.
func (c *checker) replication(ctx context.Context) error {
	switch _, err := c.source.Identify(ctx); {
	case ctx.Err() != nil:
		return err
	case err != nil:
		c.findings = append(c.findings, fault.FindingOf(err))
	default:
		c.add("replication", fault.SeverityOK, c.source.Name, "", "a replication connection can be made")
	}
	return nil
}

// chosen decides about each table as chooseTables does.
func (c *checker) chosen(ctx context.Context) error {
	catalog, err := c.source.Catalog(ctx)
	if err != nil {
		return err
	}
	tables, err := catalog.Tables(ctx, c.o.Selection)
	if fault.Is(err, fault.SourceMissing) {
		c.told = true // by Preflight
		return nil
	}
	if err != nil {
		return err
	}
	var roots []uint32
	for _, t := range tables {
		switch {
		case t.Kind != change.KindTable && t.Kind != change.KindPartitioned:
			c.add("not-followed", fault.SeverityInfo, t.String(), "", fmt.Sprintf("left out: a %s has no log", t.Kind))
			continue
		case t.Unlogged:
			c.add("not-followed", fault.SeverityWarn, t.String(), "alter table "+postgres.QuoteTable(t.Schema, t.Name)+" set logged;", "left out: the log does not tell of unlogged tables")
			continue
		}
		if c.identified(t) && t.Kind == change.KindPartitioned {
			roots = append(roots, t.OID)
		}
	}
	leaves, err := catalog.Leaves(ctx, roots)
	for _, l := range leaves {
		if l.Weak {
			c.add(identityCode, fault.SeverityError, l.Schema+"."+l.Name, identityMend(l.Schema, l.Name),
				"the log does not tell the partition's updates and deletes as its root is followed: leat run refuses it")
		}
	}
	return err
}

const identityCode = "replica-identity"

func identityMend(schema, name string) string {
	return identitySQL(schema, name) + " or give it a primary key."
}

// identified looks whether the log can tell a table's updates and deletes. Of one that would be left out the partitions do not matter.
func (c *checker) identified(t *change.Table) (followed bool) {
	chosen, whole, err := c.newTable(t)
	mend := identityMend(t.Schema, t.Name)
	switch {
	case err != nil:
		c.told = true
		c.add(identityCode, fault.SeverityError, t.String(), mend+" Or exclude it, or keep history only, or choose run.without_identity: skip or inserts.",
			"the log cannot tell updates and deletes: leat run refuses the table")
		return true
	case chosen == nil:
		c.add(identityCode, fault.SeverityWarn, t.String(), mend, "left out: the log cannot tell updates and deletes (run.without_identity)")
		return false
	case whole:
		c.full = append(c.full, t)
	default:
		c.inserts = append(c.inserts, t)
		c.add(identityCode, fault.SeverityWarn, t.String(), mend, "only inserts and truncates are followed: the log cannot tell updates and deletes (run.without_identity)")
	}
	return whole
}

// publishable tries the publications.
func (c *checker) publishable(ctx context.Context) error {
	if len(c.full)+len(c.inserts) == 0 && !c.told {
		c.add("table-missing", fault.SeverityError, "run.tables", "Check the patterns, and whether the tables have a primary key (run.without_identity).", "no table would be followed")
	}
	for _, p := range c.o.publications(c.full, c.inserts) {
		p.Trial = true
		switch _, err := c.source.EnsurePublication(ctx, p); {
		case ctx.Err() != nil:
			return err
		case err != nil:
			c.findings = append(c.findings, fault.FindingOf(err))
		case p.Given:
			c.add("publication", fault.SeverityOK, p.Name, "", fmt.Sprintf("it gives all that is needed; tables: %d", len(p.Tables)))
		default:
			c.add("publication", fault.SeverityOK, p.Name, "", fmt.Sprintf("it can be made, or is there; tables: %d", len(p.Tables)))
		}
	}
	return nil
}

// slot looks at the slot if there is one.
func (c *checker) slot(ctx context.Context) error {
	slot, err := c.source.Slot(ctx, c.o.Slot)
	if err != nil {
		return err
	}
	usable := slot.Usable(0)
	if !slot.Exists {
		usable = c.source.CanCreateSlot(postgres.SlotOptions{Name: c.o.Slot, Failover: c.o.Failover})
	}
	switch err := usable; {
	case err == nil && !slot.Exists: // whether one is free Preflight tells
	case fault.Is(err, fault.SlotBusy):
		c.add("slot", fault.SeverityWarn, slot.Name, "If it is not this pipeline that is at work: "+fault.Of(err).HowToMend(), fault.Of(err).What)
	case err != nil:
		c.findings = append(c.findings, fault.FindingOf(err))
	default:
		c.add("slot", fault.SeverityOK, slot.Name, "", "it is there, and can be read from")
	}
	return nil
}
