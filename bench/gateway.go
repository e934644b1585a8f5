//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/testlab"
)

// serveS3 as the only argument makes this program the S3 server: a process of its own, as in life.
const serveS3 = "serve-s3"

// gateway is a bucket on an S3 server. Its fields are what the server tells the bench when it is ready.
type gateway struct {
	URL string
	Env []string // for leat

	Endpoint, Region, AccessKey, SecretKey string

	server *exec.Cmd
	hold   io.Closer // the server ends when this is closed, and so also when we die
}

// serve starts the server in this process, tells where it is, and stays until stdin ends.
func serve(ctx context.Context) error {
	defer testlab.Stop()
	s, err := testlab.StartS3()
	if err != nil {
		return err
	}
	name := "bench"
	if _, err := s.Client().CreateBucket(ctx, &s3.CreateBucketInput{Bucket: &name}); err != nil {
		return err
	}
	g := gateway{URL: "s3://" + name + "/out", Env: s.Env(), Endpoint: s.Endpoint, Region: s.Region, AccessKey: s.AccessKey, SecretKey: s.SecretKey}
	if err := json.NewEncoder(os.Stdout).Encode(g); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func startGateway() (*gateway, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, serveS3)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to hear
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	g := &gateway{server: cmd, hold: stdin}
	if err := json.NewDecoder(stdout).Decode(g); err != nil {
		g.stop()
		return nil, fmt.Errorf("the S3 server does not start: %w", err)
	}
	return g, nil
}

func (g *gateway) stop() {
	g.hold.Close()
	_ = g.server.Wait() // it has nothing to tell any more
}

func (g *gateway) open(ctx context.Context) (bucket.Bucket, error) {
	return bucket.Open(ctx, g.URL, bucket.Options{
		Endpoint: g.Endpoint, Region: g.Region, AccessKeyID: g.AccessKey, SecretAccessKey: func() string { return g.SecretKey },
	})
}
