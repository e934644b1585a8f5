package way_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

var update = flag.Bool("update", false, "write the tables of docs/readers.md")

const readersMark = "<!-- below is written by the test -->\n"

// recorded are versions of readers that are too large to be installed with the tests; what they read was seen once.
var recorded = map[string]string{"trino": "Trino 476 (recorded)", "clickhouse": "ClickHouse 26.9 (recorded)"}

// readersPage is docs/readers.md as the engines say it.
type readersPage struct {
	told told

	mu       sync.Mutex
	versions map[string]string
}

func (p *readersPage) add(engine, version string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.versions[engine] = version
}

// text has a table for each form: types by readers, and the reasons below it.
func (p *readersPage) text() string {
	var b strings.Builder
	b.WriteString(readersMark)
	engines := append(slices.Clone(testlab.Engines), "trino", "clickhouse")
	for _, form := range format.Forms {
		fmt.Fprintf(&b, "\n## %s\n\n| type |", form)
		for _, e := range engines {
			b.WriteString(" " + p.versions[e] + " |")
		}
		b.WriteString("\n|" + strings.Repeat(" --- |", 1+len(engines)) + "\n")
		var notes []string
		seen := map[string]bool{}
		for _, f := range filteredTables {
			name := f.sql
			if f.old != "" {
				name = f.old
			}
			if seen[name] {
				continue
			}
			seen[name] = true
			b.WriteString("| " + name + " |")
			for _, e := range engines {
				b.WriteString(p.cell(form, readerOf(e, form), f, &notes) + " |")
			}
			b.WriteString("\n")
		}
		for i, note := range notes {
			fmt.Fprintf(&b, "\n%d. %s.", i+1, note)
		}
		if len(notes) > 0 {
			b.WriteString("\n")
		}
	}
	return b.String()
}

func (p *readersPage) cell(form format.Form, reader string, f filtered, notes *[]string) string {
	if form == format.FormParquet && reader == "clickhouse" {
		return " not tried"
	}
	why := p.told.cannot(form, reader, f)
	if why == "" {
		return " yes"
	}
	note := reader + " " + why
	if !slices.Contains(*notes, note) {
		*notes = append(*notes, note)
	}
	return fmt.Sprintf(" no (%d)", 1+slices.Index(*notes, note))
}

// compare holds the page against what the engines said, or writes it.
func (p *readersPage) compare(t *testing.T) {
	if t.Failed() {
		return
	}
	if len(p.versions) < len(testlab.Engines) {
		t.Log("docs/readers.md is compared where all engines are installed")
		return
	}
	for reader, version := range recorded {
		p.versions[reader] = version
	}
	file := testlab.RepoFile(t, "docs/readers.md")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	head, _, marked := strings.Cut(string(data), readersMark)
	want := head + p.text()
	switch {
	case !marked:
		t.Fatalf("%s lacks the line %s", file, readersMark)
	case *update && want != string(data):
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	case want != string(data):
		t.Errorf("docs/readers.md is not what readers read (make docs writes it); now:\n%s", p.text())
	}
}
