package spool_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/change"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/spool"
)

func memory(t testing.TB) bucket.Bucket {
	t.Helper()
	b, err := bucket.Open(t.Context(), "mem://", bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, b bucket.Bucket, o spool.Options) *spool.Spool {
	t.Helper()
	s, err := spool.Open(t.Context(), b, "spool", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// transaction writes rows to the tables in turn. Row bytes do not compress, so that sizes are what they seem.
func transaction(t testing.TB, s *spool.Spool, lsn, end change.LSN, rows, bytes int, tables ...string) {
	t.Helper()
	noise := rand.New(rand.NewPCG(uint64(lsn), 1))
	must(t, s.Begin(spool.Tx{LSN: lsn, XID: uint32(lsn), Committed: int64(lsn) * 10}, fmt.Appendf(nil, "begin %s", lsn)))
	for i := range rows {
		raw := fmt.Appendf(nil, "row %s %d ", lsn, i)
		for range bytes {
			raw = append(raw, byte(noise.Uint32()))
		}
		must(t, s.Add(t.Context(), tables[i%len(tables)], uint64(i+1), raw))
	}
	must(t, s.Commit(t.Context(), end, fmt.Appendf(nil, "commit %s", lsn)))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func flush(t testing.TB, s *spool.Spool, want change.LSN) {
	t.Helper()
	got, err := s.Flush(t.Context())
	if err != nil || got != want {
		t.Fatalf("durable up to %s, %v; want %s", got, err, want)
	}
}

// tell reads the spool in a few words: "B5 Drel Ra1 Ra2 C5-6".
func tell(t testing.TB, s *spool.Spool, from change.LSN, want func(string) bool) string {
	t.Helper()
	var out []string
	for r, err := range s.Read(t.Context(), from, want) {
		must(t, err)
		switch r.Kind {
		case spool.Begin:
			if r.Tx.XID != uint32(r.Tx.LSN) || r.Tx.Committed != int64(r.Tx.LSN)*10 || string(r.Raw) != "begin "+r.Tx.LSN.String() {
				t.Fatalf("%+v %q", r.Tx, r.Raw)
			}
			out = append(out, fmt.Sprintf("B%d", r.Tx.LSN))
		case spool.Definition:
			out = append(out, "D"+r.Table+"="+string(r.Raw))
		case spool.Row:
			if !strings.HasPrefix(string(r.Raw), fmt.Sprintf("row %s %d ", r.Tx.LSN, r.Seq-1)) {
				t.Fatalf("%s %d: %.20q", r.Tx.LSN, r.Seq, r.Raw)
			}
			out = append(out, fmt.Sprintf("R%s%d", r.Table, r.Seq))
		case spool.Commit:
			out = append(out, fmt.Sprintf("C%d-%d", r.Tx.LSN, r.Tx.End))
		}
	}
	return strings.Join(out, " ")
}

func only(table string) func(string) bool { return func(t string) bool { return t == table } }

func expect(t testing.TB, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got  %.300s\nwant %.300s", got, want)
	}
}

func TestWhatWasFlushedIsReadBackInOrder(t *testing.T) {
	t.Parallel()
	b := memory(t)
	s := open(t, b, spool.Options{})
	s.DefineType("mood", []byte("mood"))
	s.Define("a", []byte("one"))
	transaction(t, s, 5, 6, 2, 1, "a", "b")
	transaction(t, s, 6, 9, 1, 1, "b")
	expect(t, tell(t, s, 0, nil), "")
	flush(t, s, 9)
	s.Define("a", []byte("two"))
	transaction(t, s, 10, 12, 2, 1, "a")
	flush(t, s, 12)
	flush(t, s, 12)
	for _, again := range []*spool.Spool{s, open(t, b, spool.Options{From: 12})} {
		expect(t, tell(t, again, 0, nil), "B5 D=mood Da=one Ra1 Rb2 C5-6 B6 Rb1 C6-9 B10 D=mood Da=two Ra1 Ra2 C10-12")
		expect(t, tell(t, again, 6, nil), "B6 D=mood Rb1 C6-9 B10 D=mood Da=two Ra1 Ra2 C10-12")
		expect(t, tell(t, again, 6, only("a")), "B10 D=mood Da=two Ra1 Ra2 C10-12")
		expect(t, tell(t, again, 0, only("b")), "B5 D=mood Rb2 C5-6 B6 Rb1 C6-9")
		expect(t, tell(t, again, 12, nil), "")
	}
}

func TestADefinitionOfASkippedTransactionIsNotLost(t *testing.T) {
	t.Parallel()
	s := open(t, memory(t), spool.Options{})
	s.Define("a", []byte("one"))
	transaction(t, s, 5, 6, 1, 1, "a")
	transaction(t, s, 6, 7, 1, 1, "a")
	flush(t, s, 7)
	expect(t, tell(t, s, 6, nil), "B6 Da=one Ra1 C6-7")
}

func TestALargeTransactionSpansSegmentsAndIsSeenOnlyWhole(t *testing.T) {
	t.Parallel()
	b := memory(t)
	s := open(t, b, spool.Options{SegmentBytes: 1 << 20})
	s.Define("a", []byte("one"))
	transaction(t, s, 5, 6, 1, 1, "a")
	ctx := t.Context()
	must(t, s.Begin(spool.Tx{LSN: 7, XID: 7, Committed: 70}, []byte("begin 0/7")))
	want := "B5 Da=one Ra1 C5-6 B7"
	noise := make([]byte, 100<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for i := 1; i <= 50; i++ {
		rand.Shuffle(len(noise), func(i, j int) { noise[i], noise[j] = noise[j], noise[i] })
		if i == 20 {
			s.Define("a", []byte("two")) // inside the transaction
		}
		must(t, s.Add(ctx, "a", uint64(i), append(fmt.Appendf(nil, "row 0/7 %d ", i-1), noise...)))
	}
	expect(t, tell(t, s, 0, nil), "B5 Da=one Ra1 C5-6")
	flush(t, s, 6)
	must(t, s.Commit(ctx, 8, nil))
	flush(t, s, 8)
	transaction(t, s, 9, 10, 1, 1, "a")
	flush(t, s, 10)
	var parts int
	for o, err := range b.List(ctx, "spool/0000000000000007-") {
		must(t, err)
		parts++
		if o.Size > 3<<20 {
			t.Errorf("%s has %d bytes", o.Key, o.Size)
		}
	}
	if parts < 3 {
		t.Errorf("%d parts", parts)
	}
	for _, again := range []*spool.Spool{s, open(t, b, spool.Options{From: 10})} {
		got := tell(t, again, 0, nil)
		if !strings.HasPrefix(got, want) || !strings.Contains(got, "Ra19 Da=two Ra20") || strings.Count(got, " Ra") != 52 || !strings.HasSuffix(got, "Ra50 C7-8 B9 Da=two Ra1 C9-10") {
			t.Errorf("%s", got)
		}
		if got := tell(t, again, 7, nil); strings.Count(got, " Ra") != 51 || !strings.HasPrefix(got, "B7 Da=one Ra1 ") {
			t.Errorf("%s", got)
		}
	}
	// Without its last part the transaction does not exist.
	for o, err := range b.List(ctx, "spool/0000000000000007-0000000000000008-") {
		must(t, err)
		must(t, b.Delete(ctx, o.Key))
	}
	expect(t, tell(t, open(t, b, spool.Options{From: 10}), 0, nil), "B5 Da=one Ra1 C5-6 B9 Da=two Ra1 C9-10")
}

func TestALargeTransactionBehindOthersTakesItsDefinitionsAlong(t *testing.T) {
	t.Parallel()
	b := memory(t)
	s := open(t, b, spool.Options{SegmentBytes: 1 << 20})
	s.DefineType("mood", []byte("mood"))
	for i, name := range []string{"a", "b", "c"} {
		s.Define(name, []byte("one"))
		transaction(t, s, change.LSN(i+1), change.LSN(i+2), 1, 1, name)
	}
	must(t, s.Begin(spool.Tx{LSN: 7, XID: 7, Committed: 70}, []byte("begin 0/7")))
	for i := range 100 {
		if i == 4 {
			s.Define("a", []byte("two")) // in the transaction, and before it is cut off
		}
		must(t, s.Add(t.Context(), []string{"c", "a", "d"}[i%3], uint64(i+1), append(fmt.Appendf(nil, "row 0/7 %d ", i), make([]byte, 40<<10)...)))
	}
	must(t, s.Commit(t.Context(), 8, nil))
	flush(t, s, 8)
	got := tell(t, s, 7, nil)
	if !strings.HasPrefix(got, "B7 D=mood Dc=one Rc1 Da=one Ra2 Rd3 Rc4 ") || !strings.HasSuffix(got, "Rc100 C7-8") {
		t.Errorf("%.200s", got)
	}
	if got := tell(t, s, 7, only("a")); !strings.HasPrefix(got, "B7 D=mood Da=one Ra2 Da=two Ra5 ") || strings.Count(got, "Ra") != 33 {
		t.Errorf("%.200s", got)
	}
}

func TestWhatWasNotSaidToBeDurableIsRemovedAndWrittenAgain(t *testing.T) {
	t.Parallel()
	b := memory(t)
	s := open(t, b, spool.Options{SegmentBytes: 1 << 20})
	transaction(t, s, 5, 6, 1, 1, "a")
	flush(t, s, 6)
	transaction(t, s, 7, 8, 1, 1, "a")
	flush(t, s, 8)
	must(t, s.Begin(spool.Tx{LSN: 9}, nil))
	for i := range 60 {
		must(t, s.Add(t.Context(), "a", uint64(i+1), make([]byte, 1<<20)))
	}
	again := open(t, b, spool.Options{From: 6, Epoch: 2}) // the process was killed before its checkpoint
	expect(t, tell(t, again, 0, nil), "B5 Ra1 C5-6")
	transaction(t, again, 7, 8, 1, 1, "a")
	transaction(t, again, 9, 10, 1, 1, "a")
	flush(t, again, 10)
	expect(t, tell(t, again, 0, nil), "B5 Ra1 C5-6 B7 Ra1 C7-8 B9 Ra1 C9-10")
}

// A process that lost its lease may go on writing for a moment, and cut its segments otherwise.
func TestWhatTwoOwnersWroteIsReadOnce(t *testing.T) {
	t.Parallel()
	b := memory(t)
	old := open(t, b, spool.Options{Epoch: 1, SegmentBytes: 1 << 20})
	now := open(t, b, spool.Options{Epoch: 2, SegmentBytes: 2 << 20})
	for _, s := range []*spool.Spool{old, now} {
		transaction(t, s, 5, 6, 1, 1, "a")
		if s == old {
			flush(t, s, 6)
		}
		transaction(t, s, 7, 8, 1, 1, "a")
		transaction(t, s, 9, 10, 100, 50<<10, "a")
		flush(t, s, 10)
	}
	got := tell(t, open(t, b, spool.Options{From: 10}), 0, nil)
	if !strings.HasPrefix(got, "B5 Ra1 C5-6 B7 Ra1 C7-8 B9 Ra1 Ra2 ") || strings.Count(got, " Ra") != 102 || strings.Count(got, "B9") != 1 {
		t.Errorf("%.100s", got)
	}
}

func TestDeletingKeepsWhatIsStillNeeded(t *testing.T) {
	t.Parallel()
	b := memory(t)
	s := open(t, b, spool.Options{SegmentBytes: 1 << 20})
	transaction(t, s, 5, 6, 1, 1, "a")
	transaction(t, s, 6, 7, 1, 1, "a")
	flush(t, s, 7)
	transaction(t, s, 7, 8, 100, 40<<10, "a")
	flush(t, s, 8)
	must(t, s.Delete(t.Context(), 6))
	if got := tell(t, s, 0, nil); strings.Count(got, " Ra") != 102 {
		t.Errorf("%.100s", got)
	}
	must(t, s.Delete(t.Context(), 7))
	if got := tell(t, s, 0, nil); strings.Count(got, " Ra") != 100 {
		t.Errorf("%.100s", got)
	}
	must(t, s.Delete(t.Context(), 8))
	if s.Size() != 0 {
		t.Errorf("%d bytes are left", s.Size())
	}
	for o := range b.List(t.Context(), "") {
		t.Errorf("%s stays", o.Key)
	}
}

func TestADamagedSegmentIsNoticed(t *testing.T) {
	t.Parallel()
	b := memory(t)
	s := open(t, b, spool.Options{})
	transaction(t, s, 5, 6, 50, 100, "a")
	flush(t, s, 6)
	var key string
	for o := range b.List(t.Context(), "") {
		key = o.Key
	}
	good, err := bucket.ReadAll(t.Context(), b, key, 1<<20)
	must(t, err)
	for _, at := range []int{0, 9, 13, 20, len(good) - 1} {
		bad := append([]byte(nil), good...)
		bad[at] ^= 0x40
		_, err := bucket.WriteAll(t.Context(), b, key, bad, bucket.WriteOptions{})
		must(t, err)
		var failed error
		for _, err := range s.Read(t.Context(), 0, nil) {
			failed = errors.Join(failed, err)
		}
		if !fault.Is(failed, fault.ChecksumMismatch) && !fault.Is(failed, fault.StateUnusable) {
			t.Errorf("byte %d: %v", at, failed)
		}
	}
	_, err = bucket.WriteAll(t.Context(), b, key, good[:len(good)-3], bucket.WriteOptions{})
	must(t, err)
	for _, err := range s.Read(t.Context(), 0, nil) {
		if err != nil {
			return
		}
	}
	t.Error("a segment that was cut off is read as if it were whole")
}

func TestAnythingWrittenIsReadBack(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		noise := rand.New(rand.NewPCG(seed, 7))
		s := open(t, memory(t), spool.Options{SegmentBytes: 100 << 10})
		rows := 0
		lsn := change.LSN(1)
		for range 1 + noise.IntN(40) {
			n, bytes := 1+noise.IntN(5), noise.IntN(5000)
			if noise.IntN(8) == 0 {
				n, bytes = noise.IntN(60), 60<<10
			}
			s.Define("a", fmt.Appendf(nil, "v%d", noise.IntN(3)))
			transaction(t, s, lsn, lsn+2, n, bytes, "a", "b")
			rows += n
			lsn += 2
			if noise.IntN(5) == 0 {
				flush(t, s, lsn)
			}
		}
		flush(t, s, lsn)
		if got := tell(t, s, 0, nil); strings.Count(got, "Ra")+strings.Count(got, "Rb") != rows {
			t.Fatalf("seed %d: %d rows of %d", seed, strings.Count(got, "R"), rows)
		}
	}
}

func BenchmarkAdd(b *testing.B) {
	s := open(b, memory(b), spool.Options{})
	row := []byte(strings.Repeat("a row of an ordinary table, ", 5))
	b.SetBytes(int64(len(row)))
	b.ReportAllocs()
	lsn := change.LSN(1)
	for i := 0; b.Loop(); i++ {
		if i%3 == 0 {
			must(b, s.Begin(spool.Tx{LSN: lsn}, nil))
		}
		must(b, s.Add(context.Background(), "public.orders", uint64(i%3+1), row))
		if i%3 == 2 {
			lsn += 100
			must(b, s.Commit(context.Background(), lsn, nil))
		}
	}
}

// A row may be as large as PostgreSQL has them; neither a segment nor what is held may be.
func TestAHugeRowComesInPiecesAndIsReadWhole(t *testing.T) {
	t.Parallel()
	const huge = 21 << 20
	b := memory(t)
	s := open(t, b, spool.Options{SegmentBytes: 1 << 20})
	s.Define("a", []byte("one"))
	transaction(t, s, 5, 6, 1, 1, "a")
	transaction(t, s, 7, 8, 3, huge, "b", "a")
	transaction(t, s, 9, 10, 2, 1, "a", "b")
	flush(t, s, 10)
	for o, err := range b.List(t.Context(), "spool/") {
		must(t, err)
		if o.Size > 8<<20 {
			t.Errorf("%s has %d bytes", o.Key, o.Size)
		}
	}
	again := open(t, b, spool.Options{From: 10})
	expect(t, tell(t, again, 0, nil), "B5 Da=one Ra1 C5-6 B7 Rb1 Da=one Ra2 Rb3 C7-8 B9 Da=one Ra1 Rb2 C9-10")
	expect(t, tell(t, again, 0, only("a")), "B5 Da=one Ra1 C5-6 B7 Da=one Ra2 C7-8 B9 Da=one Ra1 C9-10")
	noise, sizes := rand.New(rand.NewPCG(7, 1)), 0
	for r, err := range again.Read(t.Context(), 7, nil) {
		must(t, err)
		if r.Kind != spool.Row || r.Tx.LSN != 7 {
			continue
		}
		_, value, _ := strings.Cut(string(r.Raw), fmt.Sprintf(" %d ", r.Seq-1))
		sizes += len(value)
		for i := range len(value) {
			if value[i] != byte(noise.Uint32()) {
				t.Fatalf("byte %d of row %d is another", i, r.Seq)
			}
		}
	}
	if sizes != 3*huge {
		t.Errorf("the rows have %d bytes", sizes)
	}
}
