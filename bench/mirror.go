//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"golang.org/x/sync/errgroup"

	"github.com/leatdata/leat/internal/testlab"
)

// clouds are two Ceph gateways on this machine and the programs that carry between them.
type clouds struct {
	b         *bench
	near, far testlab.Store
	target    string // file with the name of the bucket that the next run writes to
	serial    int
	env       []string
	mc        string
	rclone    string
}

// rivals are what people use for the same. They are built from their latest releases.
var rivals = map[string]string{"mc": "github.com/minio/mc@latest", "rclone": "github.com/rclone/rclone@latest"}

// clouds are started once for all parts.
func (b *bench) clouds(ctx context.Context) (_ *clouds, err error) {
	if b.sky == nil {
		b.sky, err = b.openClouds(ctx)
	}
	return b.sky, err
}

func (b *bench) openClouds(ctx context.Context) (*clouds, error) {
	c := &clouds{b: b, target: filepath.Join(b.scratch, "target")}
	var err error
	if c.near, err = testlab.StartCeph(); err != nil {
		return nil, err
	}
	if c.far, err = testlab.StartCeph(); err != nil {
		return nil, err
	}
	if c.mc, err = b.rival(ctx, "mc"); err != nil {
		return nil, err
	}
	if c.rclone, err = b.rival(ctx, "rclone"); err != nil {
		return nil, err
	}
	c.env = []string{"LEAT_MIRROR_METRICS="}
	for _, s := range []struct {
		name, leat string
		store      testlab.Store
	}{{"near", "FROM", c.near}, {"far", "TO", c.far}} {
		up := strings.ToUpper(s.name)
		c.env = append(c.env,
			"LEAT_MIRROR_"+s.leat+"_ENDPOINT="+s.store.Endpoint, "LEAT_MIRROR_"+s.leat+"_REGION="+s.store.Region,
			"LEAT_MIRROR_"+s.leat+"_ACCESS_KEY_ID="+s.store.AccessKey, "LEAT_MIRROR_"+s.leat+"_SECRET_ACCESS_KEY="+s.store.SecretKey,
			"MC_HOST_"+s.name+"="+strings.Replace(s.store.Endpoint, "://", "://"+s.store.AccessKey+":"+s.store.SecretKey+"@", 1),
			"RCLONE_CONFIG_"+up+"_TYPE=s3", "RCLONE_CONFIG_"+up+"_PROVIDER=Ceph", "RCLONE_CONFIG_"+up+"_ENDPOINT="+s.store.Endpoint,
			"RCLONE_CONFIG_"+up+"_ACCESS_KEY_ID="+s.store.AccessKey, "RCLONE_CONFIG_"+up+"_SECRET_ACCESS_KEY="+s.store.SecretKey, "RCLONE_CONFIG_"+up+"_REGION="+s.store.Region)
	}
	return c, nil
}

// rival builds another program, once.
func (b *bench) rival(ctx context.Context, name string) (string, error) {
	bin := filepath.Join(b.cache, "rivals")
	path := filepath.Join(bin, name)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	progress("building %s", rivals[name])
	build := exec.CommandContext(ctx, "go", "install", rivals[name])
	build.Dir = b.scratch // outside of our module
	build.Env = append(os.Environ(), "GOBIN="+bin, "CGO_ENABLED=0", "GOFLAGS=-mod=mod")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go install %s: %w\n%s", rivals[name], err, out)
	}
	return path, nil
}

// fill makes a bucket of so many objects of a size.
func (c *clouds) fill(ctx context.Context, s testlab.Store, name string, objects, size int) error {
	client := s.Client()
	if _, err := client.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name}); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for i := range objects {
		g.Go(func() error {
			_, err := client.PutObject(ctx, &s3.PutObjectInput{
				Bucket: &name, Key: aws.String(fmt.Sprintf("folder-%02d/object-%07d", i%100, i)), Body: newNoise(i, int64(size)), ContentLength: aws.Int64(int64(size)),
			})
			return err
		})
	}
	return g.Wait()
}

// noise is content that is made as it is read: Linux hands the peak memory of the bench on to what it starts, so it must not hold objects.
type noise struct {
	seed   int
	dice   *rand.ChaCha8
	at     int64
	length int64
}

func newNoise(seed int, length int64) *noise {
	n := &noise{seed: seed, length: length}
	n.rewind()
	return n
}

func (n *noise) rewind() {
	n.dice, n.at = rand.NewChaCha8([32]byte{byte(n.seed), byte(n.seed >> 8), byte(n.seed >> 16)}), 0
}

func (n *noise) Read(p []byte) (int, error) {
	if n.at == n.length {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), n.length-n.at)]
	_, _ = n.dice.Read(p) // it never fails
	n.at += int64(len(p))
	return len(p), nil
}

// Seek goes where an upload wants to: to the end to know the length, and back.
func (n *noise) Seek(offset int64, whence int) (int64, error) {
	to := offset + map[int]int64{io.SeekStart: 0, io.SeekCurrent: n.at, io.SeekEnd: n.length}[whence]
	switch to {
	case n.at:
	case 0:
		n.rewind()
	case n.length:
		n.at = to // nothing is read there
	default:
		return n.at, fmt.Errorf("cannot seek to %d of %d", to, n.length)
	}
	return to, nil
}

// contenders carry a bucket to a fresh one, or to the same one when it is named.
func (c *clouds) contenders(bucket, to string, objects int) []contender {
	into := to
	if to == "" {
		into = "$(cat " + c.target + ")"
	}
	all := []contender{
		{name: "leat mirror", args: bash(c.b.leat + " mirror --quiet s3://" + bucket + " s3://" + into)},
		{name: "mc mirror", args: bash("MC_CONFIG_DIR=$(dirname " + c.target + ")/mc " + c.mc + " --quiet mirror near/" + bucket + " far/" + into + " >/dev/null")},
		{name: "rclone sync", args: bash(c.rclone + " --config /dev/null sync --transfers 32 --checkers 32 --fast-list --s3-no-check-bucket near:" + bucket + " far:" + into)},
	}
	for i := range all {
		all[i].env = c.env
		all[i].before = func(ctx context.Context) error { return c.freshTarget(ctx, to) }
		all[i].after = func(ctx context.Context) (int64, error) { return c.check(ctx, to, objects) }
	}
	return all
}

func bash(command string) []string { return []string{"bash", "-c", command} }

func (c *clouds) freshTarget(ctx context.Context, to string) error {
	if to != "" {
		return nil
	}
	c.serial++
	name := "out-" + strconv.Itoa(c.serial)
	_, err := c.far.Client().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name})
	return errors.Join(err, os.WriteFile(c.target, []byte(name), 0o600))
}

// check counts what is at the far side, and removes what was written for one run.
func (c *clouds) check(ctx context.Context, to string, objects int) (size int64, err error) {
	name := to
	if to == "" {
		data, err := os.ReadFile(c.target)
		if err != nil {
			return 0, err
		}
		name = string(data)
	}
	client := c.far.Client()
	var keys []string
	pages := s3.NewListObjectsV2Paginator(client, &s3.ListObjectsV2Input{Bucket: &name, Prefix: aws.String("folder-")})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return 0, err
		}
		for _, o := range page.Contents {
			keys = append(keys, *o.Key)
			size += aws.ToInt64(o.Size)
		}
	}
	if len(keys) != objects {
		return 0, fmt.Errorf("the far side has %d objects, not %d", len(keys), objects)
	}
	if to != "" {
		return size, nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(16)
	for _, key := range keys {
		g.Go(func() error {
			_, err := client.DeleteObject(ctx, &s3.DeleteObjectInput{Bucket: &name, Key: &key})
			return err
		})
	}
	return size, g.Wait()
}

// carryRace carries objects to an empty bucket with each contender.
func (b *bench) carryRace(ctx context.Context, bucket string, objects, size int) ([]outcome, error) {
	c, err := b.clouds(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.fill(ctx, c.near, bucket, objects, size); err != nil {
		return nil, err
	}
	progress("%d objects of %d bytes", objects, size)
	o, err := b.race(ctx, true, b.n, c.contenders(bucket, "", objects)...)
	if err == nil {
		b.report.runs(int64(objects), o...)
	}
	return o, err
}

// mirrorSmall carries many small objects.
func mirrorSmall(ctx context.Context, b *bench) error {
	o, err := b.carryRace(ctx, "small", 10_000, 10<<10)
	if err != nil {
		return err
	}
	b.report.faster(o[0], o[1:], 0.7)
	b.report.took(o[0], own, "CPU", 3*time.Second)
	b.report.memory(o[0], 64*mib)
	return nil
}

// mirrorLarge carries few large ones.
func mirrorLarge(ctx context.Context, b *bench) error {
	o, err := b.carryRace(ctx, "large", 5, 256*mib)
	if err != nil {
		return err
	}
	b.report.faster(o[0], o[1:], 1.0)
	b.report.memory(o[0], 256*mib)
	return nil
}

// mirrorSame finds nothing to do.
func mirrorSame(ctx context.Context, b *bench) error {
	const objects = 100_000
	c, err := b.clouds(ctx)
	if err != nil {
		return err
	}
	progress("nothing to do for %d objects", objects)
	for _, s := range []testlab.Store{c.near, c.far} {
		if err := c.fill(ctx, s, "same", objects, 64); err != nil {
			return err
		}
	}
	o, err := b.race(ctx, true, b.n, c.contenders("same", "same", objects)[:2]...)
	if err != nil {
		return err
	}
	b.report.runs(objects, o...)
	b.report.faster(o[0], o[1:], 1.0)
	b.report.memory(o[0], 256*mib)
	return nil
}

// mirrorList lists five million keys on both sides. Only memory counts: one run.
func mirrorList(ctx context.Context, b *bench) error {
	const keys = 5_000_000
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { lists(w, r, keys) }), ReadHeaderTimeout: time.Minute}
	defer func() { _ = server.Close() }()      // nobody is waiting for an answer any more
	go func() { _ = server.Serve(listener) }() // ends with Close
	progress("%d keys on both sides", keys)
	env := []string{}
	for _, side := range []string{"FROM", "TO"} {
		env = append(env, "LEAT_MIRROR_"+side+"_ENDPOINT=http://"+listener.Addr().String(), "LEAT_MIRROR_"+side+"_ACCESS_KEY_ID="+side, "LEAT_MIRROR_"+side+"_SECRET_ACCESS_KEY=x")
	}
	ours := contender{
		name: fmt.Sprintf("leat mirror, %d keys", keys), args: []string{b.leat, "mirror", "--quiet", "s3://a", "s3://b"}, env: env,
		before: func(context.Context) error { return nil }, after: func(context.Context) (int64, error) { return 0, nil },
	}
	o, err := b.race(ctx, false, 1, ours)
	if err != nil {
		return err
	}
	b.report.runs(keys, o...)
	b.report.memory(o[0], 256*mib)
	return nil
}

// lists is a server that lists so many keys, and takes whatever is written.
func lists(w http.ResponseWriter, r *http.Request, keys int) {
	q := r.URL.Query()
	if !q.Has("list-type") {
		return
	}
	first, _ := strconv.Atoi(q.Get("continuation-token")) // the first page has none
	end := min(first+1000, keys)
	var page bytes.Buffer
	page.WriteString(`<?xml version="1.0" encoding="UTF-8"?><ListBucketResult><EncodingType>url</EncodingType>`)
	fmt.Fprintf(&page, "<IsTruncated>%t</IsTruncated>", end < keys)
	if end < keys {
		fmt.Fprintf(&page, "<NextContinuationToken>%d</NextContinuationToken>", end)
	}
	for i := first; i < end; i++ {
		fmt.Fprintf(&page, `<Contents><Key>folder/object-%09d</Key><LastModified>2026-01-01T00:00:00Z</LastModified><ETag>"d41d8cd98f00b204e9800998ecf8427e"</ETag><Size>1</Size></Contents>`, i)
	}
	page.WriteString("</ListBucketResult>")
	w.Header().Set("Content-Type", "application/xml")
	_, _ = w.Write(page.Bytes()) // the client went away
}
