package lake

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/testlab"
)

// onNessie makes lakes in a folder of the test's own, registered at Nessie under namespaces of the test's own.
func onNessie(t *testing.T) (n testlab.NessieServer, prefix string, lake func() *Lake) {
	t.Helper()
	n = testlab.Nessie(t)
	prefix = strings.ToLower(strings.ReplaceAll(t.Name(), "/", "_")) + "_"
	location := "s3://" + n.Store.Bucket + "/" + prefix
	b, err := bucket.Open(t.Context(), location, bucket.Options{Endpoint: n.Store.Endpoint, Region: n.Store.Region,
		AccessKeyID: n.Store.AccessKey, SecretAccessKey: func() string { return n.Store.SecretKey }})
	if err != nil {
		t.Fatal(err)
	}
	return n, prefix, func() *Lake {
		return testLake(t, t.TempDir(), func(o *Options) {
			o.Bucket, o.Location, o.NamespacePrefix = b, location, prefix
			o.Catalog = CatalogOptions{Kind: "rest", URI: n.URI, Warehouse: "warehouse"}
		})
	}
}

func TestTheRESTCatalogKeepsTables(t *testing.T) {
	t.Parallel()
	_, _, lake := onNessie(t)
	works(t, lake)
}

func TestOthersReadWhatARESTCatalogLists(t *testing.T) {
	t.Parallel()
	n, prefix, lake := onNessie(t)
	spec := historySpec()
	spec.Current = true
	table := open(t, lake(), spec)
	write(t, table, changes(t, spec, 0x100, "ccc", `[{"id":1,"name":"a"},{"id":2,"name":"b"},{"id":3}]`), 0x110)
	write(t, table, changes(t, spec, 0x200, "ud", `[{"id":1,"name":"ä"},{"id":2}]`), 0x210)
	_, rows := testlab.PyIcebergCatalog(t, n.PyIcebergSettings(), prefix+"public", "orders")
	slices.SortFunc(rows, slices.Compare)
	if want := [][]string{{"1", "ä", testlab.Null}, {"3", testlab.Null, testlab.Null}}; !slices.EqualFunc(rows, want, slices.Equal) {
		t.Errorf("current is %q", rows)
	}
	if _, rows = testlab.PyIcebergCatalog(t, n.PyIcebergSettings(), prefix+"public", "orders_history"); len(rows) != 5 {
		t.Errorf("history is %q", rows)
	}
}

func TestACommitCountsWhoseReplyIsLost(t *testing.T) {
	t.Parallel()
	n, _, lake := onNessie(t)
	target, err := url.Parse(n.URI)
	if err != nil {
		t.Fatal(err)
	}
	var lose atomic.Bool
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: target.Scheme, Host: target.Host})
	proxy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == http.MethodPost && strings.Contains(r.Request.URL.Path, "/tables/") && lose.CompareAndSwap(true, false) {
			return errors.New("lost")
		}
		return nil
	}
	proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusGatewayTimeout) }
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	l := lake()
	o := l.Options
	o.Catalog.URI = server.URL + "/iceberg"
	behind, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { behind.Close() })
	spec := historySpec()
	table := open(t, behind, spec)
	lose.Store(true)
	if done := write(t, table, changes(t, spec, 0x100, "c", `[{"id":1}]`), 0x110); done.Rows != 1 {
		t.Errorf("%+v", done)
	}
	if lose.Load() {
		t.Error("no reply was lost: the server is not asked through the proxy")
	}
	write(t, table, changes(t, spec, 0x200, "c", `[{"id":2}]`), 0x210)
	again := open(t, l, spec)
	if data, _, err := again.kept[0].ice.live(t.Context()); err != nil || len(data) != 2 || again.Position() != 0x210 {
		t.Errorf("%d files at %s, %v", len(data), again.Position(), err)
	}
}

// behind opens a lake of Nessie's whose server answers by a status instead, 0 for none; with -1 the line is cut.
func behind(t *testing.T, n testlab.NessieServer, l *Lake) (lake *Lake, answer *atomic.Int32) {
	t.Helper()
	target, err := url.Parse(n.URI)
	if err != nil {
		t.Fatal(err)
	}
	answer = &atomic.Int32{}
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: target.Scheme, Host: target.Host})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch status := int(answer.Load()); status {
		case 0:
			proxy.ServeHTTP(w, r)
		case -1:
			panic(http.ErrAbortHandler)
		default:
			w.WriteHeader(status)
		}
	}))
	t.Cleanup(server.Close)
	o := l.Options
	o.Catalog.URI = server.URL + "/iceberg"
	lake, err = Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { lake.Close() })
	return lake, answer
}

func TestARESTCatalogThatIsAwayIsAskedAgainAndOneThatRefusesIsNot(t *testing.T) {
	t.Parallel()
	n, _, lake := onNessie(t)
	l, answer := behind(t, n, lake())
	spec := historySpec()
	for i, c := range []struct {
		status int
		code   fault.Code
	}{{404, fault.LakeUnreachable}, {500, fault.LakeUnreachable}, {503, fault.LakeUnreachable}, {504, fault.LakeUnreachable}, {429, fault.LakeUnreachable}, {-1, fault.LakeUnreachable},
		{400, fault.LakeFailed}, {403, fault.LakeFailed}} {
		at := lsn(0x100 * (i + 1))
		table := open(t, l, spec)
		put(t, table, changes(t, spec, at, "c", `[{"id":1}]`))
		answer.Store(int32(c.status))
		_, err := table.Commit(t.Context(), at+8, time.Now())
		f := fault.Of(err)
		if again := c.code == fault.LakeUnreachable; !fault.Is(err, c.code) && again || f == nil || fault.Retryable(err) != again {
			t.Errorf("status %d: %v", c.status, err)
		}
		if _, err := l.Table(t.Context(), spec); !fault.Is(err, c.code) {
			t.Errorf("status %d, opening it: %v", c.status, err)
		}
		if _, err := Open(t.Context(), l.Options); !fault.Is(err, c.code) && c.status != 404 { // an address where no catalog is says so too
			t.Errorf("status %d, opening the catalog: %v", c.status, err)
		}
		if err := l.Reach(t.Context(), "public"); !fault.Is(err, c.code) {
			t.Errorf("status %d, reaching the catalog: %v", c.status, err)
		}
		answer.Store(0)
		write(t, open(t, l, spec), changes(t, spec, at, "c", `[{"id":1}]`), at+8)
	}
}

// doorman is a catalog server that lets in who shows what it wants, and knows no tables.
type doorman struct {
	*httptest.Server
	mu     sync.Mutex
	logins []url.Values
	shown  []string // Authorization of each request
}

func newDoorman(t *testing.T, start func(http.Handler) *httptest.Server, secret, pass string) *doorman {
	t.Helper()
	d := &doorman{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /login", func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ := url.ParseQuery(string(body))
		d.mu.Lock()
		d.logins = append(d.logins, form)
		d.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if form.Get("client_secret") != secret {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"no such client"}`)
			return
		}
		fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer","expires_in":3600}`, pass)
	})
	mux.HandleFunc("GET /v1/config", func(w http.ResponseWriter, r *http.Request) {
		d.mu.Lock()
		d.shown = append(d.shown, r.Header.Get("Authorization"))
		d.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if !strings.Contains(r.Header.Get("Authorization"), pass) {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error":{"message":"who are you?","type":"NotAuthorizedException","code":401}}`)
			return
		}
		fmt.Fprint(w, `{"defaults":{},"overrides":{}}`)
	})
	d.Server = start(mux)
	t.Cleanup(d.Close)
	return d
}

// knock opens a lake with the catalog and returns the error's whole text.
func (d *doorman) knock(t *testing.T, o CatalogOptions) string {
	t.Helper()
	dir := t.TempDir()
	options := testLake(t, dir, nil).Options
	o.Kind, o.URI = "rest", d.URL
	options.Catalog = o
	l, err := Open(t.Context(), options)
	if err != nil {
		if !fault.Is(err, fault.LakeFailed) {
			t.Errorf("a failure of another kind: %v", err)
		}
		return fmt.Sprintf("%v\n%+v", err, err)
	}
	l.Close()
	return ""
}

func TestARESTCatalogIsLoggedInToByOAuth2(t *testing.T) {
	t.Parallel()
	d := newDoorman(t, httptest.NewServer, "lab-oauth-secret-77", "lab-oauth-pass-88")
	o := CatalogOptions{OAuthURI: d.URL + "/login", Scope: "lake:write", Credential: func() string { return "shop:" + "lab-oauth-secret-77" }}
	if trouble := d.knock(t, o); trouble != "" {
		t.Fatal(trouble)
	}
	login := d.logins[0]
	if login.Get("client_id") != "shop" || login.Get("scope") != "lake:write" || login.Get("grant_type") != "client_credentials" {
		t.Errorf("the login asked for client %q, scope %q, grant %q", login.Get("client_id"), login.Get("scope"), login.Get("grant_type"))
	}
	if d.shown[0] != "Bearer lab-oauth-pass-88" {
		t.Errorf("the catalog was shown %q", d.shown[0])
	}
	o.Credential = func() string { return "shop:lab-wrong-secret-99" }
	if trouble := d.knock(t, o); trouble == "" || strings.Contains(trouble, "lab-wrong-secret-99") || !strings.Contains(trouble, "invalid_client") {
		t.Errorf("a wrong secret: %q", trouble)
	}
}

func TestARESTCatalogIsShownABearerToken(t *testing.T) {
	t.Parallel()
	d := newDoorman(t, httptest.NewServer, "", "lab-bearer-55")
	if trouble := d.knock(t, CatalogOptions{Token: func() string { return "lab-bearer-55" }}); trouble != "" {
		t.Error(trouble)
	}
	trouble := d.knock(t, CatalogOptions{Token: func() string { return "lab-stale-66" }})
	if trouble == "" || strings.Contains(trouble, "lab-stale-66") {
		t.Errorf("a stale token: %q", trouble)
	}
}

func TestRequestsToARESTCatalogAreSignedForAWS(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "LABKEYID")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "lab-sigv4-secret-44")
	d := newDoorman(t, httptest.NewServer, "", "AWS4-HMAC-SHA256 Credential=LABKEYID/")
	if trouble := d.knock(t, CatalogOptions{SigV4: true, Region: "eu-north-1", Service: "glue"}); trouble != "" {
		t.Fatal(trouble)
	}
	if !strings.Contains(d.shown[0], "/eu-north-1/glue/aws4_request") || strings.Contains(d.shown[0], "lab-sigv4-secret-44") {
		t.Errorf("the catalog was shown %q", d.shown[0])
	}
	for host, want := range map[string]string{"glue.eu-west-1.amazonaws.com": "glue", "s3tables.eu-west-1.amazonaws.com": "s3tables", "catalog.example.com": "execute-api"} {
		if got := signedService(host); got != want {
			t.Errorf("%s is signed for %s", host, got)
		}
	}
}

func TestARESTCatalogOfAPrivateAuthorityIsTrustedByFile(t *testing.T) {
	t.Parallel()
	d := newDoorman(t, httptest.NewTLSServer, "", "lab-tls-token-33")
	o := CatalogOptions{Token: func() string { return "lab-tls-token-33" }}
	if trouble := d.knock(t, o); !strings.Contains(trouble, "certificate") {
		t.Errorf("a stranger was trusted: %q", trouble)
	}
	o.CAFile = t.TempDir() + "/ca.pem"
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d.Certificate().Raw})
	if err := os.WriteFile(o.CAFile, certificate, 0o600); err != nil {
		t.Fatal(err)
	}
	if trouble := d.knock(t, o); trouble != "" {
		t.Error(trouble)
	}
}

func TestWhatATableOfARESTCatalogHasHadComesBack(t *testing.T) {
	t.Parallel()
	_, _, lake := onNessie(t)
	comesBack(t, lake)
}
