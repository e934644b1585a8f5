package lake

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/apache/iceberg-go/table"
	"github.com/apache/thrift/lib/go/thrift"
	hms "github.com/beltran/gohive/hive_metastore"

	"github.com/leatdata/leat/internal/fault"
)

// FuzzAnswersOfCatalogs has a REST catalog and a Hive metastore answer with anything.
func FuzzAnswersOfCatalogs(f *testing.F) {
	o := newOwnTable(f, 2)
	meta := o.read(o.last("metadata/v*.metadata.json"))
	f.Add([]byte(`{"metadata-location":"mem://m/v1.metadata.json","config":{},"metadata":` + string(meta) + `}`))
	f.Add([]byte(`{"error":{"message":"no \u001b[2J","type":"NoSuchTableException","code":404}}`))
	f.Add([]byte(`{"identifiers":[{"namespace":["a"],"name":"b"},null],"next-page-token":"t"}`))
	for _, reply := range metastoreReplies(f) {
		f.Add(reply)
	}
	var answer atomic.Pointer[[]byte]
	answer.Store(&[]byte{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if bytes.HasSuffix([]byte(r.URL.Path), []byte("/config")) {
			_, _ = io.WriteString(w, `{"defaults":{},"overrides":{}}`)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(*answer.Load())
	}))
	f.Cleanup(server.Close)
	ice, _ := fuzzTable(f)
	rest := &Lake{Options: Options{Bucket: ice.lake.Bucket, Catalog: CatalogOptions{Kind: "rest", URI: server.URL}}, places: ice.lake.places}
	if err := rest.openREST(context.Background()); err != nil {
		f.Fatal(err)
	}
	hive := &Lake{Options: Options{Bucket: ice.lake.Bucket, Catalog: CatalogOptions{Kind: "hive", URI: "thrift://" + answering(f, &answer)}}, places: ice.lake.places}
	if err := hive.openHive(context.Background()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		answer.Store(&data)
		inBounds(t, data, func(ctx context.Context) {
			for _, l := range []*Lake{rest, hive} {
				err := fault.Catching(nil, "", func() error {
					loaded, err := l.catalog.LoadTable(ctx, table.Identifier{"s", "t"})
					if err == nil {
						_ = loaded.Metadata().CurrentSnapshot()
					}
					return err
				})()
				if fault.Panicked(err) {
					t.Errorf("%s: a panic: %v", l.Catalog.Kind, err)
				}
			}
		})
	})
}

// answering is a server that writes the same to every connection.
func answering(f *testing.F, answer *atomic.Pointer[[]byte]) (address string) {
	f.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if _, err := conn.Read(make([]byte, 4096)); err != nil { // a request
					return
				}
				_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = conn.Write(*answer.Load())
			}()
		}
	}()
	return listener.Addr().String()
}

// metastoreReplies are answers of a metastore to the first request of a connection.
func metastoreReplies(f *testing.F) (all [][]byte) {
	f.Helper()
	ctx := context.Background()
	place := "mem://m/v1.metadata.json"
	for _, reply := range []thrift.TStruct{
		&hms.ThriftHiveMetastoreGetTableResult{Success: &hms.Table{TableName: "t", DbName: "s", TableType: "EXTERNAL_TABLE", Sd: &hms.StorageDescriptor{Location: "mem://t"},
			Parameters: map[string]string{"table_type": "ICEBERG", "metadata_location": place}}},
		&hms.ThriftHiveMetastoreGetTableResult{O2: &hms.NoSuchObjectException{Message: "no \x1b[2J"}},
	} {
		memory := thrift.NewTMemoryBuffer()
		p := thrift.NewTBinaryProtocolConf(memory, nil)
		if err := p.WriteMessageBegin(ctx, "get_table", thrift.REPLY, 1); err != nil {
			f.Fatal(err)
		}
		if err := reply.Write(ctx, p); err != nil {
			f.Fatal(err)
		}
		all = append(all, bytes.Clone(memory.Bytes()))
	}
	// Columns without number: the field cols is a list of structures.
	lie := []byte("\x80\x01\x00\x02\x00\x00\x00\tget_table\x00\x00\x00\x01\f\x00\x00\f\x00\a\x0f\x00\x01\f\x03\xff\xff\xff")
	return append(all, lie)
}
