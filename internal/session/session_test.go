package session_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/leatdata/leat/internal/session"
)

var update = flag.Bool("update", false, "write docs/sessions.md")

const page = `# Sessions

<!-- Written by go test ./internal/session -update from internal/session/session.go. -->

The administrator of a database decides what a session begins with: ` + "`ALTER ROLE … SET`, `ALTER DATABASE … SET`" + `. What leat writes, and what it
relies on, must not depend on that. Every session that leat opens sets what follows before it does anything else, by SQL and not by start-up
parameters, because connection poolers refuse those that they do not know. A connection string may have options; these settings win over them.

*read*: looks at the catalog, and the readers of a dump or copy. *write*: publications, slots, messages. *replication*: sessions that read the log and make
slots. *catalog*: the lake's catalog in PostgreSQL.

| setting | value | sessions | why |
| --- | --- | --- | --- |
`

const left = `
With ` + "`dump.csv_form: role`" + ` (the dump by ` + "`TABLES` and `S3_OUTPUT`" + ` has it) the readers of csv have the role's own values of those marked *,
and of ` + "`lc_monetary`, `lc_numeric` and `lc_time`" + `; the manifest records them ([FORMAT.md](FORMAT.md)).

## What is left as the role has it

| setting | why |
| --- | --- |
`

func TestTheListOfSettingsIsInTheDocs(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString(page)
	names := map[session.Use]string{session.Read: "read", session.Write: "write", session.Replication: "replication", session.Catalog: "catalog"}
	for _, s := range session.List {
		var uses []string
		for _, u := range []session.Use{session.Read, session.Write, session.Replication, session.Catalog} {
			if s.Uses&u != 0 {
				uses = append(uses, names[u])
			}
		}
		name, who := "`"+s.Name+"`", strings.Join(uses, ", ")
		if len(uses) == len(names) {
			who = "all"
		}
		if s.Form {
			name += " *"
		}
		if s.Since > 0 {
			name += fmt.Sprintf(" (from %d)", s.Since)
		}
		if s.Until > 0 {
			name += fmt.Sprintf(" (before %d)", s.Until)
		}
		fmt.Fprintf(&b, "| %s | `%s` | %s | %s |\n", name, s.Value, who, s.Why)
	}
	b.WriteString(left)
	for _, l := range session.Left {
		fmt.Fprintf(&b, "| %s | %s |\n", l[0], l[1])
	}
	const path = "../../docs/sessions.md"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, b.Bytes()) {
		t.Error("docs/sessions.md is not what the list says: go test ./internal/session -update")
	}
}

func TestTheMajorIsReadFromWhatServersCallThemselves(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]int{"15.18 (Debian 15.18-1)": 15, "18beta1": 18, "12": 12, "": 0, "devel": 0} {
		if got := session.Major(version); got != want {
			t.Errorf("%q is major %d", version, got)
		}
	}
}

func TestASessionHasWhatItsUseAndItsServerNeed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name      string
		needs     session.Needs
		has, lack []string
	}{
		{
			"a reader of 12", session.Needs{Use: session.Read, Major: 12},
			[]string{"set default_transaction_read_only = 'on'", "set force_parallel_mode = 'off'", "set search_path = 'pg_catalog'"},
			[]string{"idle_session_timeout", "transaction_timeout", "debug_parallel_query", "wal_sender_timeout"},
		},
		{
			"a walsender of 18", session.Needs{Use: session.Replication, Major: 18},
			[]string{"transaction_timeout", "idle_session_timeout", "wal_sender_timeout", "set DateStyle = 'ISO'", "client_min_messages"}, []string{"force_parallel_mode", "synchronous_commit"},
		},
		{
			"a server that does not say what it is", session.Needs{Use: session.Read},
			[]string{"set statement_timeout = '0'"}, []string{"idle_session_timeout", "transaction_timeout", "parallel_mode", "parallel_query"},
		},
		{
			"the catalog", session.Needs{Use: session.Catalog, Major: 15},
			[]string{"synchronous_commit", "default_transaction_read_only = 'off'", "standard_conforming_strings"}, []string{"search_path", "DateStyle"},
		},
		{
			"values of its own", session.Needs{Use: session.Read, Major: 15, Others: map[string]string{"lc_monetary": `a\b`}, Own: map[string]string{"search_path": `"$user", public`}},
			[]string{`set_config('lc_monetary', E'a\\b', false)`, `set_config('search_path', '"$user", public', false)`}, []string{"search_path = "},
		},
	} {
		sql := session.SQL(c.needs)
		for _, want := range c.has {
			if !strings.Contains(sql, want) {
				t.Errorf("%s lacks %s:\n%s", c.name, want, sql)
			}
		}
		for _, bad := range c.lack {
			if strings.Contains(sql, bad) {
				t.Errorf("%s has %s:\n%s", c.name, bad, sql)
			}
		}
	}
}
