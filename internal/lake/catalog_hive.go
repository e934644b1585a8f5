package lake

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog/hive"
	"github.com/apache/iceberg-go/table"
	"github.com/apache/thrift/lib/go/thrift"
	hms "github.com/beltran/gohive/hive_metastore"

	"github.com/leatdata/leat/internal/fault"
)

// openHive connects to a Hive metastore.
func (l *Lake) openHive(ctx context.Context) error {
	at, err := url.Parse(l.Catalog.URI)
	if err != nil || at.Hostname() == "" {
		return fault.New(fault.ConfigInvalid, "", "the address of the metastore cannot be understood").
			WithMend("Set lake.catalog.uri, such as thrift://metastore.example.com:9083.")
	}
	m := newMetastore(net.JoinHostPort(at.Hostname(), cmp.Or(at.Port(), "9083")), 2*time.Minute)
	conn, err := m.take()
	if err != nil {
		return catalogFailed(ctx, err, m.address, "the metastore cannot be used")
	}
	m.give(conn)
	cat := hive.NewCatalogWithClient(m, iceberg.Properties{hive.Warehouse: l.url(l.key())})
	l.use(cat, cat.Close)
	return nil
}

// mostReply bounds what an answer may say that it has, in bytes: Thrift makes room for as many items as it says.
const mostReply = 16 << 20

// metastore asks a Hive metastore for the Iceberg library. The library's own client has one connection, which is no use to
// several tables that commit at once, does not connect again, waits for ever for an answer, and trusts its locks.
type metastore struct {
	address  string
	patience time.Duration // for an answer; a commit may take a server long

	mu     sync.Mutex
	closed bool
	idle   []*metastoreConn
	locks  map[[2]string]int64 // of tables, by database and name
}

type metastoreConn struct {
	*hms.ThriftHiveMetastoreClient
	socket *thrift.TSocket
}

// drop closes a connection of which nothing more is expected.
func (c *metastoreConn) drop() { _ = c.socket.Close() }

func newMetastore(address string, patience time.Duration) *metastore {
	return &metastore{address: address, patience: patience, locks: map[[2]string]int64{}}
}

// take gives a connection that nobody else uses.
func (m *metastore) take() (*metastoreConn, error) {
	for {
		conn, err := m.waiting()
		if err != nil {
			return nil, err
		}
		if conn == nil {
			break
		}
		if conn.socket.IsOpen() {
			return conn, nil
		}
	}
	conf := &thrift.TConfiguration{ConnectTimeout: min(m.patience, 15*time.Second), SocketTimeout: m.patience, MaxMessageSize: mostReply}
	socket := thrift.NewTSocketConf(m.address, conf)
	if err := socket.Open(); err != nil {
		return nil, err
	}
	protocol := thrift.NewTBinaryProtocolConf(thrift.NewTBufferedTransport(socket, 4096), conf)
	return &metastoreConn{hms.NewThriftHiveMetastoreClient(thrift.NewTStandardClient(protocol, protocol)), socket}, nil
}

// waiting gives a connection that was used before, or nil.
func (m *metastore) waiting() (*metastoreConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, net.ErrClosed
	}
	last := len(m.idle) - 1
	if last < 0 {
		return nil, nil
	}
	conn := m.idle[last]
	m.idle = m.idle[:last]
	return conn, nil
}

func (m *metastore) give(conn *metastoreConn) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		conn.drop()
		return
	}
	m.idle = append(m.idle, conn)
}

func (m *metastore) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, conn := range m.idle {
		conn.drop()
	}
	m.idle = nil
	return nil
}

// ask has one request answered. A connection on which an answer is still to come, or half of one, serves no other request.
func ask[T any](ctx context.Context, m *metastore, request func(*metastoreConn) (T, error)) (T, error) {
	var none T
	conn, err := m.take()
	if err != nil {
		return none, err
	}
	stop := context.AfterFunc(ctx, conn.drop)
	answer, err := request(conn)
	whole := stop()
	var refused thrift.TException
	if whole && (err == nil || errors.As(err, &refused) && refused.TExceptionType() == thrift.TExceptionTypeCompiled) {
		m.give(conn)
		return answer, err
	}
	conn.drop()
	if err != nil && ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return answer, err
}

// tell is ask for requests that are answered by nothing.
func (m *metastore) tell(ctx context.Context, request func(*metastoreConn) error) error {
	_, err := ask(ctx, m, func(c *metastoreConn) (struct{}, error) { return struct{}{}, request(c) })
	return err
}

func (m *metastore) GetDatabase(ctx context.Context, name string) (*hms.Database, error) {
	return ask(ctx, m, func(c *metastoreConn) (*hms.Database, error) { return c.GetDatabase(ctx, name) })
}

func (m *metastore) CreateDatabase(ctx context.Context, d *hms.Database) error {
	return m.tell(ctx, func(c *metastoreConn) error { return c.CreateDatabase(ctx, d) })
}

func (m *metastore) AlterDatabase(ctx context.Context, name string, d *hms.Database) error {
	return m.tell(ctx, func(c *metastoreConn) error { return c.AlterDatabase(ctx, name, d) })
}

func (m *metastore) DropDatabase(ctx context.Context, name string, data, cascade bool) error {
	return m.tell(ctx, func(c *metastoreConn) error { return c.DropDatabase(ctx, name, data, cascade) })
}

func (m *metastore) GetAllDatabases(ctx context.Context) ([]string, error) {
	return ask(ctx, m, func(c *metastoreConn) ([]string, error) { return c.GetAllDatabases(ctx) })
}

func (m *metastore) GetTable(ctx context.Context, database, name string) (*hms.Table, error) {
	return ask(ctx, m, func(c *metastoreConn) (*hms.Table, error) { return c.GetTable(ctx, database, name) })
}

func (m *metastore) GetTables(ctx context.Context, database, pattern string) ([]string, error) {
	return ask(ctx, m, func(c *metastoreConn) ([]string, error) { return c.GetTables(ctx, database, pattern) })
}

func (m *metastore) CreateTable(ctx context.Context, t *hms.Table) error {
	return m.tell(ctx, func(c *metastoreConn) error { return c.CreateTable(ctx, t) })
}

func (m *metastore) DropTable(ctx context.Context, database, name string, data bool) error {
	return m.tell(ctx, func(c *metastoreConn) error { return c.DropTable(ctx, database, name, data) })
}

// AlterTable is what makes a commit visible. The server itself does not look whether the table is still the one that the commit
// was made from (only newer ones do, by the expected parameter): the lock stands for that, and the server lets it go when its
// owner was silent for some minutes.
func (m *metastore) AlterTable(ctx context.Context, database, name string, t *hms.Table) error {
	m.mu.Lock()
	id, locked := m.locks[[2]string{database, name}]
	m.mu.Unlock()
	if locked {
		lock, err := m.CheckLock(ctx, id)
		var declared thrift.TException
		if err != nil && (!errors.As(err, &declared) || declared.TExceptionType() != thrift.TExceptionTypeCompiled) {
			return fmt.Errorf("whether the lock of %s.%s is still ours is unknown: %w", database, name, err) // nothing was altered
		}
		if err != nil { // the metastore says that there is none
			return fmt.Errorf("%w: the lock of %s.%s is lost: %w", table.ErrCommitFailed, database, name, err)
		}
		if lock.State != hms.LockState_ACQUIRED {
			return fmt.Errorf("%w: the lock of %s.%s is lost: %s", table.ErrCommitFailed, database, name, lock.State)
		}
	}
	err := m.alter(ctx, database, name, t)
	var refused *hms.InvalidOperationException
	if errors.As(err, &refused) {
		if err := m.cutColumns(ctx, database, name, t); err != nil {
			return errors.Join(refused, err)
		}
		return m.alter(ctx, database, name, t)
	}
	return err
}

func (m *metastore) alter(ctx context.Context, database, name string, t *hms.Table) error {
	how := &hms.EnvironmentContext{Properties: map[string]string{"DO_NOT_UPDATE_STATS": "true"}} // else it lists the table's files
	if before, ok := t.Parameters[hive.PreviousMetadataLocationKey]; ok {
		how.Properties["expected_parameter_key"], how.Properties["expected_parameter_value"] = hive.MetadataLocationKey, before
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	longer, done := lasting(ctx, 5*time.Second) // what was sent takes place: the next opening of the table must find it
	defer done()
	return m.tell(longer, func(c *metastoreConn) error {
		return c.AlterTableWithEnvironmentContext(longer, database, name, t, how)
	})
}

// cutColumns takes the columns from the metastore's list that do not stand in next's at the same place. The metastore compares the
// two by place, and so takes a column that was dropped for one whose type has changed, which it refuses; what is added at the end
// it takes. The list is for its own eyes: readers of Iceberg find the columns in the table's metadata.
func (m *metastore) cutColumns(ctx context.Context, database, name string, next *hms.Table) error {
	now, err := m.GetTable(ctx, database, name)
	if err != nil {
		return err
	}
	same := 0
	for same < min(len(now.Sd.Cols), len(next.Sd.Cols)) && now.Sd.Cols[same].Name == next.Sd.Cols[same].Name && now.Sd.Cols[same].Type == next.Sd.Cols[same].Type {
		same++
	}
	now.Sd.Cols = now.Sd.Cols[:same]
	delete(now.Parameters, hive.PreviousMetadataLocationKey) // it is the one before the one that is there
	return m.alter(ctx, database, name, now)
}

// Lock waits a moment for the answer even when nobody wants it any more: a lock of which we do not know keeps the table from
// everybody for minutes.
func (m *metastore) Lock(ctx context.Context, request *hms.LockRequest) (*hms.LockResponse, error) {
	ctx, done := lasting(ctx, 5*time.Second)
	defer done()
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	request.User, request.Hostname = "leat", host // for those who wonder whose lock it is
	lock, err := ask(ctx, m, func(c *metastoreConn) (*hms.LockResponse, error) { return c.Lock(ctx, request) })
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, part := range request.Component {
		if part.Tablename != nil {
			m.locks[[2]string{part.Dbname, *part.Tablename}] = lock.Lockid
		}
	}
	return lock, nil
}

// lasting is a context that ends some time after ctx does, or when done is called.
func lasting(ctx context.Context, more time.Duration) (longer context.Context, done func()) {
	longer, end := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(more, end) })
	return longer, func() { stop(); end() }
}

func (m *metastore) CheckLock(ctx context.Context, id int64) (*hms.LockResponse, error) {
	return ask(ctx, m, func(c *metastoreConn) (*hms.LockResponse, error) {
		return c.CheckLock(ctx, &hms.CheckLockRequest{Lockid: id})
	})
}

func (m *metastore) Unlock(ctx context.Context, id int64) error {
	m.mu.Lock()
	for of, one := range m.locks {
		if one == id {
			delete(m.locks, of)
		}
	}
	m.mu.Unlock()
	return m.tell(ctx, func(c *metastoreConn) error { return c.Unlock(ctx, &hms.UnlockRequest{Lockid: id}) })
}
