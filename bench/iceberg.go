//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// icebergMetadata is what the bench wants to know of a table's metadata file.
type icebergMetadata struct {
	Current    int64             `json:"current-snapshot-id"`
	Properties map[string]string `json:"properties"`
	Snapshots  []struct {
		ID      int64             `json:"snapshot-id"`
		Summary map[string]string `json:"summary"`
	} `json:"snapshots"`
}

// newestMetadata is the path of a table's newest version in a lake without a catalog server.
func newestMetadata(table string) (string, error) {
	hint, err := os.ReadFile(filepath.Join(table, "metadata", "version-hint.text"))
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(hint)))
	if err != nil {
		return "", fmt.Errorf("%s: %w", table, err)
	}
	for {
		path := filepath.Join(table, "metadata", fmt.Sprintf("v%d.metadata.json", n))
		_, err := os.Stat(filepath.Join(table, "metadata", fmt.Sprintf("v%d.metadata.json", n+1)))
		if errors.Is(err, fs.ErrNotExist) {
			return path, nil
		}
		if err != nil {
			return "", err
		}
		n++
	}
}

func readMetadata(path string) (m icebergMetadata, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return m, err
	}
	return m, json.Unmarshal(data, &m)
}

// liveRows is how many rows a reader of the table finds, by its own word.
func liveRows(table string) (int64, error) {
	path, err := newestMetadata(table)
	if err != nil {
		return 0, err
	}
	m, err := readMetadata(path)
	if err != nil {
		return 0, err
	}
	for _, s := range m.Snapshots {
		if s.ID != m.Current {
			continue
		}
		all, err := strconv.ParseInt(s.Summary["total-records"], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		deleted, err := strconv.ParseInt(s.Summary["total-position-deletes"], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", path, err)
		}
		return all - deleted, nil
	}
	return 0, fmt.Errorf("%s has no snapshot", path)
}
