//go:build linux

package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/bucket"
)

func TestADumpThatLacksRowsIsAnError(t *testing.T) {
	t.Parallel()
	place, err := bucket.Open(t.Context(), t.TempDir(), bucket.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer place.Close()
	write := func(key, content string) {
		if _, err := bucket.WriteAll(t.Context(), place, key, []byte(content), bucket.WriteOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	write("d/rows.parquet", "12345")
	if _, err := inspect(t.Context(), place, 10); err == nil {
		t.Error("a place without a manifest passes for a dump of 10 rows")
	}
	const manifest = `{"format_version": 1, "totals": {"rows": 10}}`
	write("d/manifest.json", manifest)
	if _, err := inspect(t.Context(), place, 11); err == nil {
		t.Error("a manifest of 10 rows passes for 11")
	}
	size, err := inspect(t.Context(), place, 10)
	if want := int64(5 + len(manifest)); err != nil || size != want {
		t.Errorf("inspect gives %d bytes and %v, want %d bytes", size, err, want)
	}
}

func TestTheServersCPUCountsChildrenThatLiveAndThatEnded(t *testing.T) {
	t.Parallel()
	const burn = `i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done`
	for name, script := range map[string]string{
		"ended": `(` + burn + `); echo ready; read -r x`,
		"lives": `(` + burn + `; echo ready; read -r x) <&0 & wait`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "bash", "-c", script)
			hold, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			used, err := (&cluster{server: cmd}).cpu()
			if err != nil {
				t.Fatal(err)
			}
			hold.Close()
			if err := cmd.Wait(); err != nil && t.Context().Err() == nil {
				t.Logf("the script ended with %v", err) // read meets the end of its input
			}
			// What the kernel says of the whole run is the judge; a few ticks go to the shell's end.
			all := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			if used < all/2 || used > all+2*tick {
				t.Errorf("cpu gives %s of %s", used, all)
			}
		})
	}
}

func TestTheMedianIsAValueThatWasMeasured(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		seconds []int
		want    int
	}{{[]int{7}, 7}, {[]int{9, 1}, 1}, {[]int{5, 1, 9}, 5}, {[]int{4, 8, 2, 6}, 4}} {
		var o outcome
		for _, s := range c.seconds {
			o.costs = append(o.costs, cost{wall: time.Duration(s) * time.Second})
		}
		if got := median(o, wall); got != time.Duration(c.want)*time.Second {
			t.Errorf("the median of %v s is %s, want %d s", c.seconds, got, c.want)
		}
	}
}

func TestAMissedReachSaysNo(t *testing.T) {
	t.Parallel()
	run := func(name string, wall time.Duration, rss int64) outcome {
		return outcome{contender{name: name}, []cost{{wall: wall, own: wall, rss: rss}}}
	}
	var r report
	r.ratio(run("ours", 91*time.Second, 0), run("theirs", 100*time.Second, 0), 0.9)
	r.ratio(run("ours", 90*time.Second, 0), run("theirs", 100*time.Second, 0), 0.9)
	r.cpu(run("ours", 7*time.Second, 0), 6_000_000, 1)
	r.memory(run("ours", 0, 401*mib), 400*mib)
	for i, want := range []string{"0.91× | ≤ 0.90× | **no**", "0.90× | ≤ 0.90× | yes", "1.17 s | ≤ 1.00 s | **no**", "401 MiB | ≤ 400 MiB | **no**"} {
		if !strings.Contains(r.reaches[i], want) {
			t.Errorf("%s does not say %s", r.reaches[i], want)
		}
	}
}

func TestThePageKeepsWhatIsOutsideTheMarks(t *testing.T) {
	t.Parallel()
	page := filepath.Join(t.TempDir(), "README.md")
	const text = "above\n<!-- result: 6 rows -->\nold\n<!-- end: 6 rows -->\nbetween\n<!-- result: 60 rows -->\nother\n<!-- end: 60 rows -->\nbelow\n"
	if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &report{head: []string{"new"}}
	if err := r.publish(page, "6 rows"); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("above\n<!-- result: 6 rows -->\n\n%s\n<!-- end: 6 rows -->\nbetween\n<!-- result: 60 rows -->\nother\n<!-- end: 60 rows -->\nbelow\n", r.markdown())
	if string(got) != want {
		t.Errorf("the page is now\n%s\nwant\n%s", got, want)
	}
	if err := r.publish(page, "7 rows"); err == nil {
		t.Error("a page without marks for this number of rows is taken")
	}
}

func TestACommandThatFailsShowsWhatItSaid(t *testing.T) {
	t.Parallel()
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{server: &exec.Cmd{Process: self}}
	_, err = c.measure(t.Context(), nil, "bash", "-o", "pipefail", "-c", "(echo no such table >&2; exit 3) | cat >/dev/null")
	if err == nil || !strings.Contains(err.Error(), "no such table") {
		t.Errorf("the error is %v", err)
	}
}
