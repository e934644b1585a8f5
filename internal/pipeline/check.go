package pipeline

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// Check looks at the source as a run would that begins now: which tables it would follow and how, whether the publications can be had,
// and whether the slot is its own. It takes back what it tries, and neither needs the pipeline's lease nor reads its state. Rights and
// types are postgres.Preflight's. The error tells that it could not look.
func Check(ctx context.Context, source *postgres.Source, o Options) ([]fault.Finding, error) {
	o.Log = slog.New(slog.DiscardHandler)          // what a run would say of its tables are findings here
	c := &checker{run: &run{o: o, source: source}} // without a lake: that has a check of its own
	for _, look := range []func(context.Context) error{c.replication, c.chosen, c.publishable, c.slot, c.ddlTold} {
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
	catalog := c.source.Catalog()
	tables, err := catalog.Tables(ctx, c.o.Selection)
	if fault.Is(err, fault.SourceMissing) {
		c.told = true // by Preflight
		return nil
	}
	if err != nil {
		return err
	}
	for _, t := range tables {
		switch {
		case t.Kind != change.KindTable && t.Kind != change.KindPartitioned:
			c.add("not-followed", fault.SeverityInfo, t.String(), "", fmt.Sprintf("left out: a %s has no log", t.Kind))
		case t.Unlogged:
			c.add("not-followed", fault.SeverityWarn, t.String(), "alter table "+postgres.QuoteTable(t.Schema, t.Name)+" set logged;", "left out: the log does not tell of unlogged tables")
		}
	}
	all, err := c.candidates(ctx, catalog, tables, &again{})
	for _, one := range all {
		c.follows(one)
	}
	for _, l := range c.leaves {
		if !l.Logged && c.o.WithoutWAL != "refuse" {
			c.unloggedLeaf(l)
		}
	}
	if err != nil {
		return err
	}
	for _, t := range append(slices.Clone(c.full), c.inserts...) {
		c.generated(t)
	}
	return nil
}

// unloggedLeaf tells what a run does with a partition of which the WAL does not tell.
func (c *checker) unloggedLeaf(l postgres.Leaf) {
	what := "its rows are left out"
	if c.o.WithoutWAL == "copy" {
		what = "its rows are copied with its table and not followed"
	}
	c.add("not-followed", fault.SeverityWarn, l.Schema+"."+l.Name,
		"alter table "+postgres.QuoteTable(l.Schema, l.Name)+" set logged; or see run.partitions_without_wal.",
		"the WAL does not tell of unlogged and foreign partitions: "+what)
}

const identityCode = "replica-identity"

// follows says how a first start would take a table.
func (c *checker) follows(one *candidate) {
	t := one.source
	mend := identitySQL(t.Schema, t.Name) + " or give it a primary key."
	switch {
	case one.why != nil:
		c.told = true
		c.refused(one)
	case one.table == nil:
		c.add(identityCode, fault.SeverityWarn, t.String(), mend, "left out: the log cannot tell updates and deletes (run.without_identity)")
	case one.table.recopied:
		c.told = true
		c.add(identityCode, fault.SeverityWarn, t.String(), mend,
			fmt.Sprintf("the log cannot tell updates and deletes, so the whole table is copied again every %s (run.recopy_every), and no history is kept of it", c.o.RecopyEvery))
	case one.whole:
		c.full = append(c.full, t)
	default:
		c.inserts = append(c.inserts, t)
		c.add(identityCode, fault.SeverityWarn, t.String(), mend, "only inserts and truncates are followed: the log cannot tell updates and deletes (run.without_identity)")
	}
}

// refused says what becomes of a table that cannot be followed.
func (c *checker) refused(one *candidate) {
	f := fault.Of(one.why)
	code, severity, what := identityCode, fault.SeverityWarn, "leat run leaves the table out"
	if !fault.Is(one.why, fault.KeyMissing) {
		code = string(f.Code)
	}
	if c.refuses(one) {
		severity, what = fault.SeverityError, "leat run refuses the table"
	}
	c.add(code, severity, f.Where, f.HowToMend(), f.What+": "+what)
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

// ddlTold looks at the event triggers, and has the SQL that makes them or removes them.
func (c *checker) ddlTold(ctx context.Context) error {
	const code = "ddl-events"
	st, err := c.source.DDLEventsState(ctx, c.o.ddlEvents())
	if err != nil {
		return err
	}
	may, err := c.source.MayMakeEventTriggers(ctx)
	if err != nil {
		return err
	}
	must := c.o.DDLEvents == DDLEventsOn
	drop, create := "To remove them: "+strings.Join(st.Drop, "; ")+";", "A superuser can make them: "+strings.Join(st.Create, "; ")+";"
	lack, severity := "leat learns of DDL at its next look, and not at its place in the log", fault.SeverityInfo
	if must {
		lack, severity = "leat run does not start (run.ddl_events)", fault.SeverityError
	}
	switch {
	case c.o.DDLEvents == DDLEventsOff && st.There:
		c.add(code, fault.SeverityInfo, c.o.Slot, drop, "there are event triggers, and run.ddl_events is off: leat run removes them if it may, and does not listen to them")
	case c.o.DDLEvents == DDLEventsOff:
	case c.source.Version < 140000:
		c.add(code, severity, c.o.Slot, "Upgrade to 14, or choose run.ddl_events: auto or off.", "PostgreSQL 12 and 13 do not send messages of event triggers: "+lack)
	case st.Right:
		c.add(code, fault.SeverityOK, c.o.Slot, drop, "the event triggers are there, ENABLE ALWAYS and of this version: the log tells of DDL")
	case st.Usable:
		c.add(code, fault.SeverityOK, c.o.Slot, drop, "the event triggers are there: "+st.Why)
	case may:
		c.add(code, fault.SeverityOK, c.o.Slot, "", "leat run makes the event triggers: "+st.Why)
	default:
		c.add(code, severity, c.o.Slot, create, st.Why+", and the role may not make event triggers: "+lack)
	}
	return nil
}
