package dump_test

import (
	"bytes"
	"testing"

	"github.com/leatdata/leat/internal/dump"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/testlab"
)

func TestTextIsCompressedAtTheLevelAskedFor(t *testing.T) {
	t.Parallel()
	db := testlab.Postgres(t)
	db.Exec(`create schema gz; create table gz.t as select i, w[1 + abs(hashint4(i)) % 8] || w[1 + abs(hashint4(i + 1)) % 8] || w[1 + abs(hashint4(i + 2)) % 8]
		as words from generate_series(1, 20000) i, (select array['furiously ', 'carefully ', 'quickly ', 'slyly ', 'bold ', 'final ', 'pending ', 'regular '] as w) s`)
	source := connect(t, db)
	for _, kind := range []format.Kind{format.CSVGzip, format.JSONLGzip} {
		for _, layout := range []dump.Layout{dump.LayoutRun, dump.LayoutDate} {
			sizes, texts := map[int]int64{}, map[int][]byte{}
			for _, level := range []int{0, 1, format.DefaultGzipLevel, 9} {
				d := take(t, source, dump.Options{Format: kind, Layout: layout, Selection: in("gz"), GzipLevel: level})
				file := d.Tables[0].Files[0]
				sizes[level], texts[level] = file.Bytes, d.file(t, file.Key)
			}
			if sizes[0] != sizes[format.DefaultGzipLevel] || sizes[9] >= sizes[0]*9/10 || sizes[1] == sizes[0] {
				t.Errorf("%s, layout %s: bytes by level: %v", kind, layout, sizes)
			}
			if !bytes.Equal(texts[9], texts[1]) || len(texts[9]) == 0 {
				t.Errorf("%s, layout %s: the level changes the text", kind, layout)
			}
		}
	}
}
