package format_test

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
)

const mib = 1 << 20

// csvText is n bytes that compress about as well as a table's CSV; callers only read them.
func csvText(n int) []byte { return someCSV()[:n] }

var someCSV = sync.OnceValue(func() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	modes := []string{"AIR", "RAIL", "SHIP", "TRUCK", "MAIL", "REG AIR"}
	var b bytes.Buffer
	for id := 1; b.Len() < 6*mib; id++ {
		fmt.Fprintf(&b, "%d,%d,%d.%02d,19%02d-%02d-%02d,%s,carefully %x\n", id, r.IntN(200000),
			r.IntN(90000), r.IntN(100), 92+r.IntN(7), 1+r.IntN(12), 1+r.IntN(28), modes[r.IntN(6)], r.Uint32())
	}
	return b.Bytes()
})

// noise makes n bytes that do not compress at all.
func noise(n int) []byte {
	var seed [32]byte
	b := make([]byte, n)
	_, _ = rand.NewChaCha8(seed).Read(b) // it is documented to never fail
	return b
}

// gzipped writes text in pieces of at most step bytes and returns the file.
func gzipped(t *testing.T, text []byte, level, parallel, step int) []byte {
	t.Helper()
	var file bytes.Buffer
	g := format.NewGzip(&file, level, parallel)
	for len(text) > 0 {
		n := min(step, len(text))
		if _, err := g.Write(text[:n]); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// gunzipped reads a file with the standard library, whose inflate is not the one we write with.
func gunzipped(t *testing.T, file []byte) []byte {
	t.Helper()
	r, err := stdgzip.NewReader(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestGzipReadsBackAsWritten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name            string
		text            []byte
		level, parallel int
		step            int
	}{
		{"nothing, inline", nil, 0, 1, 1},
		{"nothing, parallel", nil, 0, 4, 1},
		{"one byte", []byte("x"), 0, 2, 1},
		{"one byte short of a block", csvText(mib - 1), 0, 2, 70_000},
		{"exactly one block", csvText(mib), 0, 2, 70_000},
		{"one byte past a block", csvText(mib + 1), 0, 2, 70_000},
		{"exactly four blocks", csvText(4 * mib), 0, 2, mib},
		{"one huge Write, inline", csvText(5*mib + 17), 0, 1, 16 * mib},
		{"one huge Write, parallel", csvText(5*mib + 17), 0, 3, 16 * mib},
		{"many tiny Writes", csvText(2*mib + 3), 0, 2, 3},
		{"more workers than blocks", csvText(2*mib + 3), 0, 64, 100_000},
		{"parallel below one", csvText(2*mib + 3), 0, -1, 100_000},
		{"fastest", csvText(3*mib + 5), 1, 2, 65_537},
		{"smallest", csvText(1*mib + 5), 9, 2, 65_537},
		{"incompressible", noise(3*mib + 5), 0, 2, 65_537},
		{"all the same byte", make([]byte, 5*mib), 0, 2, 65_537},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := gzipped(t, c.text, c.level, c.parallel, c.step)
			if !bytes.Equal(gunzipped(t, file), c.text) {
				t.Error("text read back differs")
			}
		})
	}
}

func TestGzipBinaryAcceptsTheFile(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("gzip"); err != nil {
		t.Skip("no gzip binary on this machine")
	}
	for name, text := range map[string][]byte{"empty": {}, "many members": csvText(3*mib + 11)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			file := gzipped(t, text, 0, 2, 50_000)
			for _, flag := range []string{"-t", "-dc"} {
				cmd := exec.CommandContext(t.Context(), "gzip", flag)
				cmd.Stdin = bytes.NewReader(file)
				got, err := cmd.Output()
				if err != nil {
					t.Fatalf("gzip %s: %v", flag, err)
				}
				if flag == "-dc" && !bytes.Equal(got, text) {
					t.Error("gzip -dc gives other text")
				}
			}
		})
	}
}

func TestGzipGivesTheSameBytesHoweverItIsRun(t *testing.T) {
	t.Parallel()
	text := csvText(4*mib + 99)
	want := gzipped(t, text, 0, 1, len(text))
	for _, c := range []struct{ parallel, step int }{{1, 1000}, {2, 77_777}, {8, len(text)}} {
		if !bytes.Equal(gzipped(t, text, 0, c.parallel, c.step), want) {
			t.Errorf("parallel %d in Writes of %d bytes gives other bytes", c.parallel, c.step)
		}
	}
}

func TestGzipStaysSmall(t *testing.T) {
	t.Parallel()
	text := csvText(2 * mib)
	var best bytes.Buffer
	six, err := stdgzip.NewWriterLevel(&best, 6)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := six.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := six.Close(); err != nil {
		t.Fatal(err)
	}
	if got := len(gzipped(t, text, 0, 2, mib)); got > best.Len()*5/4 {
		t.Errorf("%d bytes, more than 1.25 times the %d of gzip -6", got, best.Len())
	}
	if got := len(gzipped(t, text, 7, 2, mib)); got > best.Len()*105/100 {
		t.Errorf("%d bytes at level 7, more than 1.05 times the %d of gzip -6", got, best.Len())
	}
	if got, most := len(gzipped(t, noise(2*mib), 0, 2, mib)), 2*mib+2*mib/1000; got > most {
		t.Errorf("incompressible text grew to %d bytes, more than %d", got, most)
	}
}

func TestGzipFlushEndsAFileThatCanBeFollowedByAnother(t *testing.T) {
	t.Parallel()
	for _, parallel := range []int{1, 3} {
		var file bytes.Buffer
		first := format.NewGzip(&file, 0, parallel)
		write(t, first, "header\n")
		if err := first.Flush(); err != nil {
			t.Fatal(err)
		}
		if got := string(gunzipped(t, file.Bytes())); got != "header\n" {
			t.Errorf("after Flush the file reads %q", got)
		}
		second := format.NewGzip(&file, 0, parallel)
		write(t, second, "rows\n")
		if err := second.Close(); err != nil {
			t.Fatal(err)
		}
		write(t, first, "footer\n")
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		if got := string(gunzipped(t, file.Bytes())); got != "header\nrows\nfooter\n" {
			t.Errorf("the whole reads %q", got)
		}
	}
}

func TestGzipFlushOfNothingWritesNothing(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	g := format.NewGzip(&file, 0, 2)
	if err := g.Flush(); err != nil || file.Len() != 0 {
		t.Errorf("Flush of nothing: %v, %d bytes", err, file.Len())
	}
	write(t, g, "text")
	for range 2 {
		if err := g.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	size := file.Len()
	if err := g.Close(); err != nil || file.Len() != size {
		t.Errorf("Close after Flush: %v, and %d bytes more", err, file.Len()-size)
	}
}

func write(t *testing.T, w io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
}

// narrowWriter takes room bytes and then fails, or claims to have taken less.
type narrowWriter struct {
	room  int
	short bool
	calls int // after the failure
}

var errFull = errors.New("the disk is full")

func (w *narrowWriter) Write(p []byte) (int, error) {
	if len(p) <= w.room {
		w.room -= len(p)
		return len(p), nil
	}
	w.room = 0
	w.calls++
	if w.short {
		return len(p) - 1, nil
	}
	return 0, errFull
}

func TestGzipReportsTheWritersError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		parallel int
		room     int
		short    bool
		want     error
	}{
		{"at once, inline", 1, 0, false, errFull},
		{"at once, parallel", 4, 0, false, errFull},
		{"after some blocks, parallel", 4, 2 * mib, false, errFull},
		{"a short write", 4, 0, true, io.ErrShortWrite},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := &narrowWriter{room: c.room, short: c.short}
			g := format.NewGzip(w, 0, c.parallel)
			var err error
			for range 100 { // the error comes at the latest when all workers are taken
				if _, err = g.Write(noise(mib)); err != nil {
					break
				}
			}
			if !errors.Is(err, c.want) {
				t.Fatalf("Write: %v, want %v", err, c.want)
			}
			if n, err := g.Write([]byte("more")); n != 0 || !errors.Is(err, c.want) {
				t.Errorf("a later Write: %d, %v", n, err)
			}
			for range 2 {
				if err := g.Close(); !errors.Is(err, c.want) {
					t.Errorf("Close: %v, want %v", err, c.want)
				}
			}
			if w.calls != 1 {
				t.Errorf("the writer was called %d times from its failure on, want once", w.calls)
			}
		})
	}
}

func TestGzipReportsAnErrorOfTheLastBlockFromClose(t *testing.T) {
	t.Parallel()
	g := format.NewGzip(&narrowWriter{}, 0, 2)
	write(t, g, "short text")
	for range 2 {
		if err := g.Close(); !errors.Is(err, errFull) {
			t.Errorf("Close: %v", err)
		}
	}
}

func TestGzipTakesNothingAfterClose(t *testing.T) {
	t.Parallel()
	var file bytes.Buffer
	g := format.NewGzip(&file, 0, 2)
	write(t, g, "text")
	for range 2 {
		if err := g.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := g.Write([]byte("late")); err == nil {
		t.Error("Write after Close gave no error")
	}
	if err := g.Flush(); err == nil {
		t.Error("Flush after Close gave no error")
	}
	if got := string(gunzipped(t, file.Bytes())); got != "text" {
		t.Errorf("the file reads %q", got)
	}
}

func TestGzipRefusesAnUnknownLevel(t *testing.T) {
	t.Parallel()
	for _, level := range []int{-3, -1, 10} {
		var file bytes.Buffer
		g := format.NewGzip(&file, level, 2)
		_, err := g.Write([]byte("text"))
		if !fault.Is(err, fault.FormatUnusable) || !strings.Contains(err.Error(), fmt.Sprint(level)) {
			t.Errorf("level %d: Write: %v", level, err)
		}
		if err := g.Close(); !fault.Is(err, fault.FormatUnusable) || file.Len() > 0 {
			t.Errorf("level %d: Close: %v, %d bytes", level, err, file.Len())
		}
	}
}

// A bubble fails the test if a goroutine in it stays blocked for ever.
func TestGzipDroppedWithoutCloseLeavesNoGoroutine(t *testing.T) {
	t.Parallel()
	text := csvText(3*mib + 1)
	synctest.Test(t, func(t *testing.T) {
		g := format.NewGzip(io.Discard, 0, 4)
		if _, err := g.Write(text); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkGzip(b *testing.B) {
	text := csvText(6 * mib)
	for _, parallel := range []int{1, 2} {
		b.Run(fmt.Sprint("parallel=", parallel), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				g := format.NewGzip(io.Discard, 0, parallel)
				for rest := text; len(rest) > 0; rest = rest[min(64<<10, len(rest)):] {
					if _, err := g.Write(rest[:min(64<<10, len(rest))]); err != nil {
						b.Fatal(err)
					}
				}
				if err := g.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
