package lake

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	toxics "github.com/Shopify/toxiproxy/v2/client"
	"github.com/apache/iceberg-go/table"
	hms "github.com/beltran/gohive/hive_metastore"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// onHive makes lakes in a folder, registered at the metastore that answers at the address.
func onHive(t *testing.T, address string) (database string, lake func() *Lake) {
	t.Helper()
	testlab.Hive(t)
	prefix, dir := strings.ToLower(t.Name())+"_", t.TempDir()
	return prefix + "public", func() *Lake {
		return testLake(t, dir, func(o *Options) {
			o.NamespacePrefix, o.Catalog = prefix, CatalogOptions{Kind: "hive", URI: "thrift://" + address}
		})
	}
}

func TestTheHiveCatalogKeepsTables(t *testing.T) {
	t.Parallel()
	_, lake := onHive(t, testlab.Hive(t).Address)
	keeps(t, "Orders_1", lake) // it allows no odd names
}

func TestTablesInHiveCommitAtOnce(t *testing.T) {
	t.Parallel()
	_, lake := onHive(t, testlab.Hive(t).Address)
	l, all := lake(), [4]*lakeTable{}
	for i := range all {
		spec := historySpec()
		spec.Table.Name = fmt.Sprintf("orders_%d", i)
		all[i] = open(t, l, spec)
	}
	for round := 1; round <= 5; round++ {
		var g errgroup.Group
		for _, one := range all {
			at := lsn(0x100 * round)
			if err := one.Write(t.Context(), changes(t, one.spec, at, "c", `[{"id":1}]`)); err != nil {
				t.Fatal(err)
			}
			g.Go(func() error { _, err := one.Commit(t.Context(), at+8, time.Now()); return err })
		}
		if err := g.Wait(); err != nil {
			t.Fatal(err)
		}
	}
}

// theLock asks for the lock of a table as another writer would.
func theLock(t *testing.T, m *metastore, database, name string) *hms.LockResponse {
	t.Helper()
	lock, err := m.Lock(t.Context(), &hms.LockRequest{Component: []*hms.LockComponent{
		{Type: hms.LockType_EXCLUSIVE, Level: hms.LockLevel_TABLE, Dbname: database, Tablename: &name},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return lock
}

func newOther(t *testing.T) *metastore {
	m := newMetastore(testlab.Hive(t).Address, time.Minute)
	t.Cleanup(func() { m.Close() })
	return m
}

func TestATableInHiveThatIsLockedWaitsForItsLock(t *testing.T) {
	t.Parallel()
	database, lake := onHive(t, testlab.Hive(t).Address)
	spec, other := historySpec(), newOther(t)
	table := open(t, lake(), spec)
	lock := theLock(t, other, database, "orders_history")
	if err := table.Write(t.Context(), changes(t, spec, 0x100, "c", `[{"id":1}]`)); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Commit(t.Context(), 0x110, time.Now()); !fault.Is(err, fault.LakeConflict) || !strings.Contains(err.Error(), "lock") {
		t.Errorf("got %v", err)
	}
	if err := other.Unlock(t.Context(), lock.Lockid); err != nil {
		t.Fatal(err)
	}
	again := open(t, lake(), spec)
	write(t, again, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	if lock = theLock(t, other, database, "orders_history"); lock.State != hms.LockState_ACQUIRED {
		t.Errorf("after a commit the lock is %s", lock.State)
	}
}

func TestACommitToHiveWhoseLockRanOutIsRefused(t *testing.T) {
	t.Parallel()
	database, lake := onHive(t, testlab.Hive(t).Address)
	l := lake()
	open(t, l, historySpec())
	ours, other := newOther(t), newOther(t)
	now, err := ours.GetTable(t.Context(), database, "orders_history")
	if err != nil {
		t.Fatal(err)
	}
	lock := theLock(t, ours, database, "orders_history")
	if err := other.Unlock(t.Context(), lock.Lockid); err != nil { // as the server does by itself after some minutes
		t.Fatal(err)
	}
	if err := ours.AlterTable(t.Context(), database, "orders_history", now); !errors.Is(err, table.ErrCommitFailed) {
		t.Errorf("got %v", err)
	}
}

func TestALockOfHiveThatNobodyWantsAnyMoreIsLetGo(t *testing.T) {
	t.Parallel()
	hive := testlab.Hive(t)
	proxy := testlab.Toxiproxy(t, hive.Address)
	database, lake := onHive(t, proxy.Listen)
	spec := historySpec()
	table := open(t, lake(), spec)
	if err := table.Write(t.Context(), changes(t, spec, 0x100, "c", `[{"id":1}]`)); err != nil {
		t.Fatal(err)
	}
	if _, err := proxy.AddToxic("slow", "latency", "downstream", 1, toxics.Attributes{"latency": 500}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 250*time.Millisecond) // while the answer is on its way
	defer stop()
	if _, err := table.Commit(ctx, 0x110, time.Now()); err == nil {
		t.Fatal("it was committed after all")
	}
	if lock := theLock(t, newOther(t), database, "orders_history"); lock.State != hms.LockState_ACQUIRED {
		t.Errorf("the lock is %s", lock.State)
	}
}

func TestAMetastoreThatWentAwayIsAskedAgain(t *testing.T) {
	t.Parallel()
	proxy := testlab.Toxiproxy(t, testlab.Hive(t).Address)
	_, lake := onHive(t, proxy.Listen)
	spec := historySpec()
	table := open(t, lake(), spec)
	write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110)
	if err := proxy.Disable(); err != nil { // which cuts what is connected
		t.Fatal(err)
	}
	if err := proxy.Enable(); err != nil {
		t.Fatal(err)
	}
	write(t, table, changes(t, spec, 0x200, "c", `[{"id":2}]`), 0x210)
}

func TestAMetastoreThatNeverAnswersIsGivenUp(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0") // it takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	m := newMetastore(l.Addr().String(), 200*time.Millisecond)
	if _, err := m.GetAllDatabases(t.Context()); err == nil {
		t.Error("silence is an answer")
	}
	m.patience = time.Hour
	ctx, stop := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer stop()
	if _, err := m.GetTable(ctx, "a", "b"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if len(m.idle) != 0 {
		t.Error("a connection on which an answer may still come is used again")
	}
}
