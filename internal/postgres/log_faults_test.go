package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/postgres"
	"github.com/leatdata/leat/internal/testlab"
)

func TestACutConnectionIsTold(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.Postgres(t), `create table t (id int primary key)`)
	proxy := testlab.Toxiproxy(t, fmt.Sprintf("127.0.0.1:%d", lab.Server.Port))
	source, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: strings.Replace(lab.URL, fmt.Sprintf("127.0.0.1:%d", lab.Server.Port), proxy.Listen, 1)})
	if err != nil {
		t.Fatal(err)
	}
	log, err := source.Log(t.Context(), lab.options())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	lab.Exec(`insert into t values (1)`)
	follow(t, log, lab.now(), nil)
	if err := proxy.Disable(); err != nil {
		t.Fatal(err)
	}
	for {
		ctx, cancel := context.WithTimeout(t.Context(), logPatience)
		_, err := log.Next(ctx)
		cancel()
		if err == nil {
			continue
		}
		if !fault.Is(err, fault.SourceCut) || !fault.Retryable(err) {
			t.Errorf("%v", err)
		}
		if _, again := log.Next(t.Context()); !errors.Is(again, err) {
			t.Errorf("the log goes on after its end: %v", again)
		}
		return
	}
}

func TestAValueOf200MegabytesPasses(t *testing.T) {
	t.Parallel()
	for _, streaming := range []bool{false, true} {
		t.Run(fmt.Sprint("streaming=", streaming), func(t *testing.T) {
			t.Parallel()
			lab := newLogLab(t, testlab.Postgres(t, 16), `create table t (id int primary key, v text)`)
			lab.Exec(`insert into t values (1, repeat('0123456789', 20000000)), (2, 'small')`)
			o := lab.options()
			if streaming {
				o = lab.streamed(t.TempDir(), 16)
			}
			var sizes []int
			follow(t, lab.open(o), lab.now(), func(e *postgres.Event) {
				if e.Kind == postgres.EventInsert {
					v := e.New.Bytes(1)
					sizes = append(sizes, len(v))
					if len(v) > 5 && !bytes.HasSuffix(v, []byte("0123456789")) {
						t.Error("the value is damaged")
					}
				}
			})
			if fmt.Sprint(sizes) != "[200000000 5]" {
				t.Error(sizes)
			}
		})
	}
}

func TestAConsumerThatTakesItsTimeIsNotCut(t *testing.T) {
	t.Parallel()
	db := testlab.OwnPostgres(t, testlab.ServerOptions{Settings: []string{"wal_sender_timeout = 1s"}})
	lab := newLogLab(t, db, `create table t (id int primary key, v text)`)
	log := lab.open(lab.options())
	lab.Exec(`insert into t select i, repeat('x', 1000) from generate_series(1, 30000) i`) // more than sockets hold
	r := newReplica(t)
	stall, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	<-stall.Done()
	follow(t, log, lab.now(), r.see)
	r.equals(lab, "public.t")
}

func TestAServerThatStopsIsNotHeldUp(t *testing.T) {
	t.Parallel()
	lab := newLogLab(t, testlab.OwnPostgres(t, testlab.ServerOptions{}), `create table t (id int primary key)`)
	log := lab.open(lab.options())
	lab.Exec(`insert into t values (1)`)
	follow(t, log, lab.now(), func(e *postgres.Event) { log.Ack(e.Position) })
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		lab.Server.Stop()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), logPatience)
	defer cancel()
	for {
		e, err := log.Next(ctx)
		if err != nil {
			if !fault.Is(err, fault.SourceCut) {
				t.Error(err)
			}
			break
		}
		log.Ack(e.Position)
	}
	select {
	case <-stopped:
	case <-ctx.Done():
		t.Error("the server waits for us")
	}
}

func TestWhatIsWrongWithASlotIsTold(t *testing.T) {
	t.Parallel()
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		lab := newLogLab(t, db, `create table t (id int primary key)`)
		refused := func(o postgres.LogOptions, source *postgres.Source, want fault.Code) error {
			t.Helper()
			log, err := source.Log(t.Context(), o)
			if err == nil {
				log.Close()
			}
			if !fault.Is(err, want) {
				t.Errorf("got %v, want %s", err, want)
			}
			return err
		}
		o := lab.options()
		o.Slot = "absent"
		refused(o, lab.source, fault.SlotMissing)

		log := lab.open(lab.options())
		if err := refused(lab.options(), lab.source, fault.SlotBusy); err != nil && !strings.Contains(err.Error(), "PID") {
			t.Errorf("who reads the slot is not named: %v", err)
		}
		log.Close()

		role := lab.Role("")
		poor, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: role.URL})
		if err != nil {
			t.Fatal(err)
		}
		if err := refused(lab.options(), poor, fault.SourceRights); err != nil && !strings.Contains(fault.Of(err).HowToMend(), "replication") {
			t.Errorf("no mend: %s", fault.Of(err).HowToMend())
		}

		lab.Exec(`insert into t values (1)`)
		o = lab.options()
		o.From, _ = change.ParseLSN(lab.One("select confirmed_flush_lsn from pg_replication_slots where slot_name = '" + lab.slot + "'"))
		lab.Exec(`select pg_replication_slot_advance('` + lab.slot + `', pg_current_wal_insert_lsn())`)
		refused(o, lab.source, fault.SlotLost)
	})
}

func TestAMissingPublicationIsToldAndNotPassedOver(t *testing.T) {
	t.Parallel()
	everyMajor(t, func(t *testing.T, db *testlab.DB, major int) {
		lab := newLogLab(t, db, `create table t (id int primary key)`)
		role := lab.Role("SUPERUSER") // from 18 on it is a warning, which a role can do without
		lab.Hostile(role.Name)
		source, err := postgres.Connect(t.Context(), postgres.Settings{ConnString: role.URL})
		if err != nil {
			t.Fatal(err)
		}
		lab.source = source
		o := lab.options()
		o.Publications = []string{`no "such" it's`}
		lab.Exec(`insert into t values (1)`)
		log := lab.open(o)
		ctx, cancel := context.WithTimeout(t.Context(), logPatience)
		defer cancel()
		for {
			e, err := log.Next(ctx)
			if err != nil {
				if !fault.Is(err, fault.PublicationUnusable) {
					t.Error(err)
				}
				return
			}
			if e.Kind == postgres.EventIdle && e.Position >= lab.now() {
				t.Fatal("the rows were passed over")
			}
		}
	})
}
