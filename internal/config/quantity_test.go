package config_test

import (
	"encoding"
	"fmt"
	"testing"
	"time"

	"github.com/leatdata/leat/internal/config"
)

func TestQuantitiesAreReadAndWritten(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		into          encoding.TextUnmarshaler
		text, written string
		value         any
	}{
		{new(config.Size), "8MiB", "8MiB", int64(8 << 20)},
		{new(config.Size), "100MB", "100MB", int64(100e6)},
		{new(config.Size), "1.5GiB", "1536MiB", int64(3 << 29)},
		{new(config.Size), " 512 ", "512", int64(512)},
		{new(config.Size), "7 kB", "7KB", int64(7000)},
		{new(config.Size), "9223372036854775807", "9223372036854775807", int64(1<<63 - 1)},
		{new(config.Rate), "50MiB", "50MiB/s", int64(50 << 20)},
		{new(config.Rate), "50MB/s", "50MB/s", int64(50e6)},
		{new(config.Rate), "0", "0", int64(0)},
		{new(config.Duration), "1m30s", "1m30s", int64(90 * time.Second)},
		{new(config.Duration), "0", "0s", int64(0)},
		{new(config.Interval), "1m30s", "1m30s", int64(90 * time.Second)},
		{new(config.Interval), "auto", "auto", int64(config.IntervalAuto)},
		{new(config.IAM), "true", "auto", "auto"},
		{new(config.IAM), "false", "", ""},
		{new(config.IAM), "us-gov-west-1", "us-gov-west-1", "us-gov-west-1"},
		{new(config.UnboundedNumeric), "decimal( 38 , 9 )", "decimal(38,9)", "decimal(38,9)"},
	} {
		if err := c.into.UnmarshalText([]byte(c.text)); err != nil {
			t.Errorf("%T %q: %v", c.into, c.text, err)
			continue
		}
		written, value := "", any(nil)
		switch v := c.into.(type) {
		case *config.Size:
			written, value = v.String(), int64(*v)
		case *config.Rate:
			written, value = v.String(), int64(*v)
		case *config.Duration:
			written, value = v.String(), int64(*v)
		case *config.Interval:
			written, value = v.String(), int64(*v)
		case *config.IAM:
			written, value = string(*v), string(*v)
		case *config.UnboundedNumeric:
			written, value = string(*v), string(*v)
		}
		if written != c.written || value != c.value {
			t.Errorf("%T %q: got %s, %v, want %s, %v", c.into, c.text, written, value, c.written, c.value)
		}
	}
}

func TestWhatIsWrittenIsReadTheSame(t *testing.T) {
	t.Parallel()
	for _, n := range []int64{0, 1, 1000, 1024, 1500, 1e6, 1 << 20, 3 << 30, 1<<63 - 1} {
		var size config.Size
		var rate config.Rate
		if err := size.UnmarshalText([]byte(fmt.Sprint(config.Size(n)))); err != nil || int64(size) != n {
			t.Errorf("size %d: got %d, %v", n, size, err)
		}
		if err := rate.UnmarshalText([]byte(fmt.Sprint(config.Rate(n)))); err != nil || int64(rate) != n {
			t.Errorf("rate %d: got %d, %v", n, rate, err)
		}
	}
}

func TestQuantitiesThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		into  encoding.TextUnmarshaler
		texts []string
	}{
		{new(config.Size), []string{"", "MiB", "-1", "1e3", "1..5", "8M", "8mib", "0.3B", "9223372036854775808", "99999999TiB", "1 2", "0x10", "١"}},
		{new(config.Rate), []string{"", "50MiB/m", "/s", "-1"}},
		{new(config.Duration), []string{"", "10", "-1s", "1 day", "1y", "abc"}},
		{new(config.Interval), []string{"", "0", "0s", "10", "-1s", "Auto", "automatic"}},
		{new(config.IAM), []string{"", "yes", "Europe", "eu-west"}},
		{new(config.UnboundedNumeric), []string{"", "decimal", "decimal(0,0)", "decimal(39,0)", "decimal(5,6)", "decimal(5)", "Text"}},
	} {
		for _, text := range c.texts {
			if err := c.into.UnmarshalText([]byte(text)); err == nil {
				t.Errorf("%T took %q", c.into, text)
			}
		}
	}
}
