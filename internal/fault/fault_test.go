package fault_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/fault"
)

var update = flag.Bool("update", false, "write docs/errors.md anew")

func TestAFaultSaysWhereWhatAndWhy(t *testing.T) {
	t.Parallel()
	err := fault.Wrap(errors.New("connection refused"), fault.SourceUnreachable, "db:5432/shop", "cannot connect as %s", "app")
	if got, want := err.Error(), "db:5432/shop: cannot connect as app: connection refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if fault.Wrap(nil, fault.Internal, "", "") != nil {
		t.Error("wrapping no error made one")
	}
}

func TestTheOutermostFaultDecides(t *testing.T) {
	t.Parallel()
	inner := fault.New(fault.SourceCut, "t", "cut")
	outer := fmt.Errorf("more words: %w", fault.Wrap(inner, fault.SnapshotLost, "db", "gone"))
	if fault.Of(outer).Code != fault.SnapshotLost {
		t.Errorf("got %s", fault.Of(outer).Code)
	}
	if !fault.Is(outer, fault.SnapshotLost) {
		t.Error("the outermost fault does not decide")
	}
	if fault.Is(outer, fault.SourceCut) {
		t.Error("the cause of a decision was taken for the decision")
	}
	if fault.Is(outer, fault.BucketFull) || fault.Is(nil, fault.SourceCut) || fault.Of(errors.New("x")) != nil {
		t.Error("a fault was found that is not there")
	}
}

func TestOnlyWhatWasJudgedIsTriedAgain(t *testing.T) {
	t.Parallel()
	f := func(err error, want bool) {
		t.Helper()
		if got := fault.Retryable(err); got != want {
			t.Errorf("%v: retryable %v, want %v", err, got, want)
		}
	}
	f(fault.New(fault.BucketBusy, "", "busy"), true)
	f(fault.New(fault.SourceAuth, "", "no"), false)
	f(errors.New("unknown"), false)
	f(fault.New(fault.SourceCut, "", "ended").Because(context.Canceled), true)
	f(fault.New(fault.Interrupted, "", "ended").Because(fault.New(fault.SourceCut, "", "cut")), false)
	f(context.Canceled, false)
	f(nil, false)
}

func TestTheExitStatusFollowsTheClass(t *testing.T) {
	t.Parallel()
	f := func(err error, want fault.Exit) {
		t.Helper()
		if got := fault.ExitOf(err); got != want {
			t.Errorf("%v: exit %d, want %d", err, got, want)
		}
	}
	f(nil, fault.ExitOK)
	f(errors.New("x"), fault.ExitFailed)
	f(fault.New(fault.ConfigUnknown, "", ""), fault.ExitUsage)
	f(fault.New(fault.SourceRights, "", ""), fault.ExitSource)
	f(fault.New(fault.BucketFull, "", ""), fault.ExitTarget)
	f(fault.New(fault.ValueUncarriable, "", ""), fault.ExitData)
}

func TestAMendOfItsOwnGoesBeforeTheCodes(t *testing.T) {
	t.Parallel()
	f := fault.New(fault.SourceRights, "t", "no")
	if f.HowToMend() != fault.Codes[fault.SourceRights].Mend {
		t.Error("the code's mend is not given")
	}
	if err := fault.Mended(f, "grant %s", "it"); fault.Of(err).HowToMend() != "grant it" {
		t.Errorf("got %q", fault.Of(err).HowToMend())
	}
}

func TestEveryCodeHasAMeaningAndAMend(t *testing.T) {
	t.Parallel()
	for code, e := range fault.Codes {
		if e.Meaning == "" || e.Mend == "" || e.Exit == fault.ExitOK || strings.ToLower(string(code)) != string(code) {
			t.Errorf("%s: %+v", code, e)
		}
	}
}

func TestAClockIsRightWithinTheTimeItTookToAsk(t *testing.T) {
	t.Parallel()
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	f := func(theirs time.Duration, want fault.Severity) {
		t.Helper()
		got := fault.ClockFinding("clock", "db", noon, noon.Add(time.Second), noon.Add(theirs))
		if got.Severity != want {
			t.Errorf("a clock %s off: %s", theirs, got.Severity)
		}
	}
	f(0, fault.SeverityOK)
	f(5*time.Second, fault.SeverityOK)
	f(7*time.Second, fault.SeverityWarn)
	f(-7*time.Second, fault.SeverityWarn)
}

func TestThePageOfErrorsIsTheRegistry(t *testing.T) {
	t.Parallel()
	const path = "../../docs/errors.md"
	page := errorsPage()
	if *update {
		if err := os.WriteFile(path, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != page {
		t.Error("docs/errors.md is not what the registry says: make docs")
	}
}

func errorsPage() string {
	var b strings.Builder
	b.WriteString(`# Errors

<!-- Written by the tests of internal/fault from its registry: make docs -->

Every error names a code, the thing it happened to and how to mend it. Codes are stable, scripts may match them
(` + "`--json`" + ` gives ` + "`code`" + `, ` + "`where`" + `, ` + "`what`" + `, ` + "`mend`" + ` and ` + "`retryable`" + `). The exit status tells the class:

| status | class |
| --- | --- |
| 0 | done |
| 1 | anything without a class of its own |
| 2 | settings: flags, environment, leat.yaml |
| 3 | PostgreSQL |
| 4 | the bucket or folder |
| 5 | a value cannot be carried exactly and no policy says how |
| 6 | leat check or leat bucket found something |
| 130, 143 | ended by SIGINT, SIGTERM |

"Again" says whether the same attempt can succeed later without anybody's help.

| code | status | again | what it means | what helps |
| --- | --- | --- | --- | --- |
`)
	for _, code := range slices.Sorted(maps.Keys(fault.Codes)) {
		e := fault.Codes[code]
		again := "no"
		if e.Retry {
			again = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %d | %s | %s | %s |\n", code, e.Exit, again, e.Meaning, e.Mend)
	}
	return b.String()
}
