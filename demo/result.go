package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/jackc/pgx/v5"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/dump"
)

// showResult looks at what the two dumps left, and holds it against the database.
func (d *demo) showResult(ctx context.Context) error {
	heading("What is in the bucket")
	parquet, err := d.store.open(ctx, "shop")
	if err != nil {
		return err
	}
	defer parquet.Close()
	csv, err := d.store.open(ctx, "job")
	if err != nil {
		return err
	}
	defer csv.Close()
	folder, err := showObjects(ctx, parquet)
	if err != nil {
		return err
	}
	job, err := showObjects(ctx, csv)
	if err != nil {
		return err
	}
	heading("The manifest, written last, begins")
	if err := showHead(ctx, parquet, folder+"/"+dump.ManifestName, 24); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, d.shop.admin)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	heading("Every file read back, and held against the database")
	return errors.Join(compareParquet(ctx, conn, parquet, folder), compareCSV(ctx, conn, csv, job))
}

// showObjects lists a place and returns the folder that has a manifest.
func showObjects(ctx context.Context, b bucket.Bucket) (folder string, err error) {
	for o, err := range b.List(ctx, "") {
		if err != nil {
			return "", err
		}
		fmt.Printf("%10s  %s/%s\n", thousands(o.Size), b.Properties().URL, o.Key)
		if path.Base(o.Key) == dump.ManifestName {
			folder = path.Dir(o.Key)
		}
	}
	if folder == "" {
		return "", fmt.Errorf("%s has no manifest", b.Properties().URL)
	}
	return folder, nil
}

// showHead prints the first lines of an object.
func showHead(ctx context.Context, b bucket.Bucket, key string, lines int) error {
	data, err := bucket.ReadAll(ctx, b, key, 1<<20)
	if err != nil {
		return err
	}
	all := strings.SplitAfter(string(data), "\n")
	fmt.Print(strings.Join(all[:min(lines, len(all))], ""))
	fmt.Printf("  … %d lines more: columns, types, files and their SHA-256\n", max(0, len(all)-lines))
	return nil
}

// compareParquet decodes every row of every file by Arrow's reader and counts.
func compareParquet(ctx context.Context, conn *pgx.Conn, b bucket.Bucket, folder string) error {
	m, err := dump.ReadManifest(ctx, b, folder)
	if err != nil {
		return err
	}
	fmt.Printf("%-24s %12s %12s\n", "parquet", "in the files", "in the table")
	wrong := 0
	for _, t := range m.Tables {
		var inFiles, inTable int64
		for _, f := range t.Files {
			data, err := readObject(ctx, b, f)
			if err != nil {
				return err
			}
			n, err := countParquet(ctx, data)
			if err != nil {
				return fmt.Errorf("%s: %w", f.Key, err)
			}
			inFiles += n
		}
		name := pgx.Identifier{t.Schema, t.Name}.Sanitize()
		if err := conn.QueryRow(ctx, "SELECT count(*) FROM "+name).Scan(&inTable); err != nil {
			return err
		}
		fmt.Printf("%-24s %12s %12s  %s\n", t.Name, thousands(inFiles), thousands(inTable), mark(inFiles == inTable, &wrong))
	}
	return verdict(wrong, "tables have other rows in the files than in the database")
}

// readObject reads a whole object and holds it against the manifest's checksum.
func readObject(ctx context.Context, b bucket.Bucket, f dump.FileManifest) ([]byte, error) {
	data, err := bucket.ReadAll(ctx, b, f.Key, 1<<30)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != f.SHA256 {
		return nil, fmt.Errorf("%s is not what the manifest says: its SHA-256 differs", f.Key)
	}
	return data, nil
}

// countParquet decodes all columns of a file and counts the rows that came out.
func countParquet(ctx context.Context, data []byte) (int64, error) {
	rows, err := pqarrow.ReadTable(ctx, bytes.NewReader(data), nil, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return 0, err
	}
	defer rows.Release()
	return rows.NumRows(), nil
}

// compareCSV holds the unpacked bytes of every file against the server's own COPY.
func compareCSV(ctx context.Context, conn *pgx.Conn, b bucket.Bucket, folder string) error {
	m, err := dump.ReadManifest(ctx, b, folder)
	if err != nil {
		return err
	}
	fmt.Printf("%-24s %12s %12s\n", "csv.gz", "unpacked", "COPY … CSV")
	wrong := 0
	for _, t := range m.Tables {
		files, server := &digest{Hash: sha256.New()}, &digest{Hash: sha256.New()}
		for _, f := range t.Files {
			data, err := readObject(ctx, b, f)
			if err != nil {
				return err
			}
			unpacked, err := gzip.NewReader(bytes.NewReader(data))
			if err != nil {
				return fmt.Errorf("%s: %w", f.Key, err)
			}
			if _, err := io.Copy(files, unpacked); err != nil {
				return fmt.Errorf("%s: %w", f.Key, err)
			}
		}
		name := pgx.Identifier{t.Schema, t.Name}.Sanitize()
		if _, err := conn.PgConn().CopyTo(ctx, server, "COPY "+name+" TO STDOUT CSV"); err != nil {
			return err
		}
		same := bytes.Equal(files.Sum(nil), server.Sum(nil))
		fmt.Printf("%-24s %10s B %10s B  %s\n", t.Name, thousands(files.size), thousands(server.size), mark(same, &wrong))
	}
	return verdict(wrong, "tables have other bytes in the files than COPY gives")
}

// digest is a hash that also counts.
type digest struct {
	hash.Hash
	size int64
}

func (d *digest) Write(p []byte) (int, error) {
	d.size += int64(len(p))
	return d.Hash.Write(p)
}

func mark(same bool, wrong *int) string {
	if same {
		return "✓ same"
	}
	*wrong++
	return "✗ DIFFERENT"
}

func verdict(wrong int, what string) error {
	if wrong > 0 {
		return fmt.Errorf("%d %s", wrong, what)
	}
	return nil
}
