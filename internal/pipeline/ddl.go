package pipeline

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/checkpoint"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
)

// Event triggers at the source let the WAL tell of DDL at its place. A message is no proof, and it never takes a doubt away: it makes the run
// look soon, and it claims what a look by itself cannot see. A look judges the claim.

// afterDDL is how long a look waits for further commands: a script that makes a partition and then gives it an identity is not looked at in between.
const afterDDL = time.Second

// ddlEvents names the pipeline's event triggers.
func (o *Options) ddlEvents() postgres.DDLEvents {
	return postgres.DDLEvents{Slot: o.Slot, Publications: []string{o.Publication, o.Publication + insertsSuffix}}
}

func (r *run) ddlEvents() postgres.DDLEvents { return r.o.ddlEvents() }

// prepareDDLEvents makes or removes the event triggers, as it was chosen, and says whether it has made them. Where they are usable the run
// listens to them.
func (r *run) prepareDDLEvents(ctx context.Context, next *again) (made bool, err error) {
	d := r.ddlEvents()
	st, err := r.source.DDLEventsState(ctx, d)
	if err != nil {
		return false, err
	}
	must := r.o.DDLEvents == DDLEventsOn
	defer func() { next.toldDDL = true }()
	switch {
	case r.o.DDLEvents == DDLEventsOff:
		return false, r.removeDDLEvents(ctx, st, next)
	case r.source.Version < 140000 && must:
		return false, fault.New(fault.SourceVersion, "run.ddl_events", "PostgreSQL 12 and 13 do not send messages of event triggers to leat").
			WithMend("Choose run.ddl_events: auto, or upgrade to 14.")
	case r.source.Version < 140000:
		return false, nil
	}
	if !st.Usable {
		if made, err = r.makeDDLEvents(ctx, st, must); err != nil {
			return false, err
		}
	}
	switch {
	case made:
		r.o.Log.Info("event triggers were made: the log tells of DDL on the tables", "slot", r.o.Slot)
	case !st.Usable && !next.toldDDL:
		r.o.Log.Info("there are no event triggers, and the role may not make them: DDL is noticed at the next look instead of at its place in the log",
			"because", st.Why, "hint", "leat check --for run prints the SQL for a superuser; run.ddl_events: off is silent")
	}
	if made || st.Usable {
		r.ddl = d.Prefix()
	}
	return made, nil
}

// makeDDLEvents makes them where the role may. Unless they must be there, it is no error that it could not.
func (r *run) makeDDLEvents(ctx context.Context, st postgres.DDLState, must bool) (made bool, err error) {
	if r.source.InRecovery {
		err = fault.New(fault.SourceRights, r.source.Name, "there are no usable event triggers, and a standby cannot make them (%s)", st.Why).
			WithMend("Run on the primary, as a superuser: %s; or choose run.ddl_events: auto.", strings.Join(st.Create, "; "))
	} else if may, e := r.source.MayMakeEventTriggers(ctx); e != nil {
		return false, e
	} else if may || must {
		made, err = r.source.EnsureDDLEvents(ctx, r.ddlEvents())
	}
	if err != nil && !must && ctx.Err() == nil {
		r.o.Log.Debug("event triggers cannot be made", "error", err)
		return false, nil
	}
	return made, err
}

// removeDDLEvents removes what an earlier start has made. What the role may not remove stays, and is not listened to.
func (r *run) removeDDLEvents(ctx context.Context, st postgres.DDLState, next *again) error {
	if !st.There || r.source.InRecovery {
		return nil
	}
	dropped, err := r.source.DropDDLEvents(ctx, r.ddlEvents())
	switch {
	case err != nil && ctx.Err() != nil:
		return err
	case err != nil && !next.toldDDL:
		r.o.Log.Info("the event triggers stay: the role may not remove them", "hint", fault.Pasted("Run as a superuser: "+strings.Join(st.Drop, "; ")+";"))
	case dropped:
		r.o.Log.Info("the event triggers were removed", "slot", r.o.Slot)
	}
	return nil
}

// hear takes a message of a DDL event. What it says is judged by a look; what cannot be read is a reason to look too.
func (r *run) hear(ctx context.Context, ev *postgres.Event) error {
	if r.ddl == "" || ev.Message.Prefix != r.ddl || !ev.Message.Transactional {
		return nil
	}
	r.heard = true
	m, err := postgres.ParseDDL(ev.Message.Content)
	if err != nil {
		r.o.Log.Debug("a message of a DDL event cannot be read", "error", err)
		return nil
	}
	for _, told := range m.Tables {
		t := r.byOID[told.OID]
		for _, above := range told.Above {
			if t == nil {
				t = r.byOID[above]
			}
		}
		if t == nil {
			continue
		}
		because, err := r.untold(ctx, t, told, ev.Tx.LSN)
		if err != nil {
			return err
		}
		if because != "" {
			r.claim(t, ev.Tx, because, false)
		}
	}
	if m.By != r.o.Slot {
		r.unpublished(m.Publications, ev.Tx)
	}
	return nil
}

// unpublished claims that tables were not in the publications, or not as they are.
func (r *run) unpublished(changed []postgres.DDLPublication, tx postgres.Tx) {
	for _, p := range changed {
		if p.Name != r.o.Publication && p.Name != r.o.Publication+insertsSuffix {
			continue
		}
		for oid, t := range r.byOID {
			if p.Table == 0 || p.Table == oid {
				r.claim(t, tx, postgres.Republication, true)
			}
		}
	}
}

// untold says why the WAL may not have told all of a table, given what a command has made of it or of a partition; "" if it has. at is the
// command's place.
func (r *run) untold(ctx context.Context, t *table, m postgres.DDLTable, at change.LSN) (string, error) {
	itself := m.OID == t.source.OID
	weak := slices.ContainsFunc(m.Weak, func(leaf uint32) bool {
		_, known := t.facts.Relations[leaf]
		return known && at >= t.leafSeen[leaf] // what a new one was before it was found the facts tell
	})
	switch {
	case m.Rewrite&postgres.RewritePersistence != 0:
		return "it was made unlogged or logged, and of the time between the WAL does not tell", nil
	case weak:
		return "a partition's replica identity was weaker than its root's for a time", nil
	case itself && m.Identity == 'f' && t.facts.Identity != 0 && m.Key != t.facts.Key:
		return "its primary key was dropped or made, and the WAL does not tell which rows it held for", nil
	case itself && m.Rewrite&(postgres.RewriteType|postgres.RewriteDefault) != 0:
		if other, err := r.revalued(ctx, t, m); err != nil || !other {
			return "", err
		}
		return "its rows were written again with other values in a column that keeps its type", nil
	}
	return "", nil
}

// columnType is a column's type, as far as it decides its values.
type columnType struct {
	oid    uint32
	typmod int32
}

// revalued says whether rows that are written again have other values in a column whose type stays: a new type is followed when the next row
// comes. A rewrite for a type also touches columns that had a default when they were added, so it is explained by a column whose type is
// another one, or that the lake does not have yet. Where it is not known what the lake has, rows may have other values.
func (r *run) revalued(ctx context.Context, t *table, m postgres.DDLTable) (bool, error) {
	if t.diverted() && (t.mode == checkpoint.Copying || t.lake == nil) {
		return len(m.Columns) > 0, nil
	}
	if err := r.place(ctx, t); err != nil {
		return false, err
	}
	columns := t.lake.Columns()
	explained, generated := len(m.Columns) == 0, false
	for _, c := range m.Columns {
		i := slices.IndexFunc(columns, func(k change.Column) bool { return k.Attnum == c.Attnum })
		now := columnType{c.Type, c.Typmod}
		stays := i >= 0 && (now == columnType{columns[i].TypeOID, columns[i].Typmod} || now == t.retyped[c.Attnum]) // also by way of another type
		explained, generated = explained || !stays, generated || stays && c.Generated
		if t.retyped == nil {
			t.retyped = map[int16]columnType{}
		}
		t.retyped[c.Attnum] = now
	}
	return m.Rewrite&postgres.RewriteType != 0 && !explained || m.Rewrite&postgres.RewriteDefault != 0 && generated, nil
}

// mostClaims bounds the transactions of one claim.
const mostClaims = 64

// claim notes what a message claims of a table. It is saved with the position, behind which it is not told again. A copy that is taken
// later holds all that the command has done.
func (r *run) claim(t *table, tx postgres.Tx, because string, published bool) {
	if t.mode != checkpoint.Copying && tx.LSN < t.lower {
		return
	}
	c := checkpoint.Claim{Because: because}
	if t.claim != nil {
		c = *t.claim
	}
	c.At, c.Published = tx.LSN, c.Published || published
	if !slices.Contains(c.XIDs, tx.XID) {
		c.XIDs = append(slices.Clone(c.XIDs[:min(len(c.XIDs), mostClaims-1)]), tx.XID)
	}
	r.noteClaim(t, &c)
	r.watchClaim(t)
}

func (r *run) noteClaim(t *table, c *checkpoint.Claim) {
	t.claim = c
	state := r.state.Tables[t.key]
	state.Claim = c
	r.state.Tables[t.key] = state
}

// watchClaim hands a table's claim to the looks, unless it is being copied: whether the copy is behind the claim is known at its end.
func (r *run) watchClaim(t *table) {
	if t.claim == nil || t.mode == checkpoint.Copying {
		return
	}
	if t.claim.At < t.lower {
		r.noteClaim(t, nil)
		return
	}
	r.watched.claim(t.source.OID, asked(t.claim))
}

func asked(c *checkpoint.Claim) postgres.Claim {
	return postgres.Claim{XIDs: c.XIDs, Because: c.Because, Published: c.Published}
}

// savedClaims are those that the first look of an attempt judges.
func (r *run) savedClaims() map[uint32]postgres.Claim {
	claims := map[uint32]postgres.Claim{}
	for oid, t := range r.byOID {
		if was := r.state.Tables[t.key]; was.OID == oid && was.Claim != nil && was.Phase != checkpoint.Copying {
			claims[oid] = asked(was.Claim)
		}
	}
	return claims
}

// groundless are the claims that a look has judged and that are no reason for a copy.
func groundless(o postgres.LookOptions, sight postgres.Sight) map[uint32]postgres.Claim {
	judged := map[uint32]postgres.Claim{}
	for _, oid := range sight.Judged {
		judged[oid] = o.Claims[oid]
	}
	for _, d := range sight.Doubts {
		delete(judged, d.Table)
	}
	return judged
}

// dropGroundless forgets saved claims that the first look has found to be groundless.
func (r *run) dropGroundless(sight postgres.Sight) {
	for oid := range groundless(postgres.LookOptions{}, sight) {
		state := r.state.Tables[r.byOID[oid].key]
		state.Claim = nil
		r.state.Tables[r.byOID[oid].key] = state
	}
}

// dropJudged forgets claims that a look has found to be groundless, unless more was claimed since.
func (r *run) dropJudged(judged map[uint32]postgres.Claim) (dropped bool) {
	for oid, c := range judged {
		if t := r.byOID[oid]; t != nil && t.claim != nil && slices.Equal(t.claim.XIDs, c.XIDs) {
			r.noteClaim(t, nil)
			dropped = true
		}
	}
	return dropped
}

// claims says whether a look is still to judge one.
func (r *run) claims() bool {
	for _, t := range r.tables {
		if t.claim != nil {
			return true
		}
	}
	return false
}

func (w *watched) claim(oid uint32, c postgres.Claim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.options.Claims == nil {
		w.options.Claims = map[uint32]postgres.Claim{}
	}
	w.options.Claims[oid] = c
}

// judged drops claims, unless more was claimed since.
func (w *watched) judged(claims map[uint32]postgres.Claim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for oid, c := range claims {
		if slices.Equal(w.options.Claims[oid].XIDs, c.XIDs) {
			delete(w.options.Claims, oid)
		}
	}
}

// noteLeaves notes where partitions were found that were not known before.
func (t *table) noteLeaves(was, now postgres.Facts, at change.LSN) {
	for oid := range now.Relations {
		if _, known := was.Relations[oid]; !known {
			t.leafSeen[oid] = at
		}
	}
}

// signal wakes whoever waits for it, once.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
