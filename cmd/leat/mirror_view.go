package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/mirror"
)

// mirrorView shows a mirror: a bar on a terminal, lines or JSON elsewhere, or what MinIO's client would say.
type mirrorView struct {
	out    io.Writer
	log    io.Writer
	json   *jsonView
	job    bool // speaks as the sync job did
	tell   bool
	dryRun bool
	bars   *mpb.Progress
	began  time.Time

	fromName, toName string // of the buckets with their paths, as the job says them

	mu        sync.Mutex
	planned   struct{ objects, bytes int64 } // to be carried
	done      struct{ objects, bytes int64 }
	same      int64
	failed    int64
	closeOnce sync.Once
	moved     atomic.Int64
}

func (c *cli) newMirrorView(cfg *config.Config, dryRun bool) *mirrorView {
	v := &mirrorView{
		out: c.stdout, log: c.stderr, began: time.Now(), dryRun: dryRun,
		fromName: place(cfg.Mirror.From.URL), toName: place(cfg.Mirror.To.URL),
	}
	switch {
	case c.json:
		v.json = &jsonView{out: c.stdout}
	case cfg.MirrorDropIn():
		v.job = true
		say(v.out, "Added `input` successfully.\nAdded `output` successfully.\n")
	case c.quiet:
	case cfg.Log.Format == config.LogAuto && isTerminal(c.stderr) && !dryRun:
		v.live(c.stderr)
	default:
		v.tell = true
	}
	return v
}

// place is a bucket and its path without the scheme.
func place(url string) string {
	if _, rest, ok := strings.Cut(url, "://"); ok {
		url = rest
	}
	return strings.TrimRight(url, "/")
}

func (v *mirrorView) live(terminal io.Writer) {
	v.bars = mpb.New(mpb.WithOutput(terminal), mpb.WithRefreshRate(120*time.Millisecond), mpb.WithAutoRefresh())
	v.log = v.bars
	filler := mpb.BarFillerFunc(func(w io.Writer, s decor.Statistics) error {
		room := max(min(s.AvailableWidth-2, 30), 4)
		full := int(v.fraction() * float64(room))
		say(w, "[%s%s]", strings.Repeat("█", full), strings.Repeat("·", room-full))
		return nil
	})
	v.bars.MustAdd(1, filler, mpb.PrependDecorators(decor.Any(func(decor.Statistics) string { return "mirror " })),
		mpb.AppendDecorators(decor.Any(func(decor.Statistics) string { return v.figures() })))
}

func (v *mirrorView) fraction() float64 {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.planned.bytes == 0 {
		return 0
	}
	return min(float64(v.moved.Load())/float64(v.planned.bytes), 1)
}

// figures are objects, bytes, speed and the time that is left of what is known so far.
func (v *mirrorView) figures() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	elapsed, moved := time.Since(v.began), v.moved.Load()
	speed := float64(moved) / max(elapsed.Seconds(), 0.001)
	text := fmt.Sprintf(" %s of %s objects  %s of %s  %s/s", thousands(v.done.objects), thousands(v.planned.objects), byteText(moved), byteText(v.planned.bytes), byteText(int64(speed)))
	if left := v.planned.bytes - moved; left > 0 && speed > 0 {
		text += "  ETA " + durationText(time.Duration(float64(left)/speed*float64(time.Second)))
	}
	if v.same > 0 {
		text += fmt.Sprintf("  %s the same", thousands(v.same))
	}
	if v.failed > 0 {
		text += fmt.Sprintf("  %s set aside", thousands(v.failed))
	}
	return text
}

// Write takes log lines, so that they do not break the picture.
func (v *mirrorView) Write(p []byte) (int, error) { return v.log.Write(p) }

// Seen counts what is to be done.
func (v *mirrorView) Seen(o bucket.Object, verdict mirror.Verdict) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if verdict.Same != "" {
		v.same++
		return
	}
	v.planned.objects++
	v.planned.bytes += o.Size
	switch {
	case !v.dryRun:
	case v.json != nil:
		v.json.event("would-carry", aboutKey(o.Key, map[string]any{"bytes": o.Size, "reason": verdict.Differ}))
	case v.tell || v.job:
		say(v.out, "carry  %10s  %-8s  %s\n", byteText(o.Size), verdict.Differ, o.Key)
	}
}

// Moved counts bytes.
func (v *mirrorView) Moved(bytes int64) { v.moved.Add(bytes) }

// Carried tells of an object that is at the far side.
func (v *mirrorView) Carried(key string, bytes int64, how string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done.objects++
	v.done.bytes += bytes
	switch {
	case v.json != nil:
		v.json.event("carried", aboutKey(key, map[string]any{"bytes": bytes, "how": how}))
	case v.job:
		say(v.out, "`input/%s/%s` -> `output/%s/%s`\n", v.fromName, key, v.toName, key)
	case v.tell:
		say(v.out, "%s  %s\n", key, byteText(bytes))
	}
}

// Deleted tells of an object that is gone at the far side.
func (v *mirrorView) Deleted(key string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.json != nil:
		v.json.event("deleted", aboutKey(key, map[string]any{"dry_run": v.dryRun}))
	case v.job:
		say(v.out, "Removing `output/%s/%s`.\n", v.toName, key)
	case v.tell:
		say(v.out, "delete  %s\n", key)
	}
}

// Again tells of an object that is tried again.
func (v *mirrorView) Again(key string, err error, in time.Duration) {
	if v.json != nil {
		v.json.event("again", aboutKey(key, map[string]any{"error": err.Error(), "seconds": in.Seconds()}))
	}
}

// SetAside tells of an object that could not be carried.
func (v *mirrorView) SetAside(key string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.failed++
	if v.json != nil {
		v.json.event("set-aside", aboutKey(key, map[string]any{"error": err.Error()}))
		return
	}
	say(v.log, "set aside: %s: %v\n", key, err)
}

// aboutKey adds the key to what JSON tells of an object: one that is no UTF-8, which JSON cannot say, also in base64.
func aboutKey(key string, about map[string]any) map[string]any {
	about["key"] = key
	if exact := mirror.KeyBytes(key); exact != nil {
		about["key_bytes"] = exact
	}
	return about
}

// LeftOut tells of what is no object. Markers of folders, and files that no table needs, are nothing to look at: they are counted.
func (v *mirrorView) LeftOut(key string, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case v.json != nil:
		v.json.event("left-out", aboutKey(key, map[string]any{"error": err.Error()}))
	case !fault.Is(err, fault.ObjectMarker) && !fault.Is(err, fault.ObjectOrphan):
		say(v.log, "left out: %s: %v\n", key, err)
	}
}

func (v *mirrorView) summary(r mirror.Report) {
	elapsed := r.Finished.Sub(r.Started)
	moved := r.Carried.Bytes + r.Copied.Bytes
	speed := int64(float64(moved) / max(elapsed.Seconds(), 0.001))
	switch {
	case v.json != nil:
		v.json.event("done", map[string]any{"report": r})
	case v.job:
		say(v.out, "Total: %s, Transferred: %s, Speed: %s/s\n", jobBytes(v.planned.bytes), jobBytes(moved), jobBytes(speed))
	case v.tell || v.bars != nil:
		verb, objects := "Carried", r.Carried.Objects+r.Copied.Objects
		if v.dryRun {
			verb, objects, moved = "Would carry", v.planned.objects, v.planned.bytes
		}
		say(v.out, "%s %s, %s, in %s (%s/s); %s were there already", verb, plural(int(objects), "object"), byteText(moved), durationText(elapsed), byteText(speed), thousands(v.same))
		for _, n := range []struct {
			count int64
			what  string
		}{{int64(r.Tables), "Iceberg tables brought up to date"}, {int64(r.TablesSame), "Iceberg tables up to date already"}, {int64(r.Dumps), "dumps completed"}, {r.Deleted, "deleted"}, {r.Gone, "gone meanwhile"}, {r.Failed, "set aside"}, {r.Withheld, "not deleted, because objects were set aside"}, {r.Unlisted, "not deleted, because the source has them"}, {total(r.LeftOut), "left out: " + codes(r.LeftOut)}} {
			if n.count > 0 {
				say(v.out, "; %s %s", thousands(n.count), n.what)
			}
		}
		for _, a := range slices.Sorted(maps.Keys(r.NotCarried)) {
			say(v.out, "; %s without their %s", thousands(r.NotCarried[a]), a)
		}
		say(v.out, ".\n")
	}
}

func total(counts map[fault.Code]int64) (n int64) {
	for _, count := range counts {
		n += count
	}
	return n
}

// codes are those that something was counted by.
func codes(counts map[fault.Code]int64) string {
	var all []string
	for _, code := range slices.Sorted(maps.Keys(counts)) {
		all = append(all, string(code))
	}
	return strings.Join(all, ", ")
}

// jobBytes writes bytes as MinIO's client does.
func jobBytes(n int64) string {
	f, units := float64(n), []string{"B", "KiB", "MiB", "GiB", "TiB"}
	for f >= 1024 && len(units) > 1 {
		f, units = f/1024, units[1:]
	}
	if units[0] == "B" {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.2f %s", f, units[0])
}

func (v *mirrorView) close() {
	v.closeOnce.Do(func() {
		if v.bars != nil {
			v.bars.Shutdown()
			v.log = v.out
		}
	})
}
