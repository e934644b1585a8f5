package mirror

import (
	"bufio"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// checksums are those that S3 keeps, best and fastest first
// (docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html).
var checksums = []struct {
	name string
	make func() hash.Hash
}{
	{"crc64nvme", func() hash.Hash { return crc64.New(nvme) }},
	{"sha256", sha256.New},
	{"crc32c", func() hash.Hash { return crc32.New(crc32.MakeTable(crc32.Castagnoli)) }},
	{"sha1", sha1.New},
	{"md5", md5.New},
	{"crc32", func() hash.Hash { return crc32.NewIEEE() }},
}

// nvme is the polynomial of CRC-64/NVME, reflected (NVM Express NVM Command Set Specification 1.0d, figure 82).
var nvme = crc64.MakeTable(0x9a6c9329ac4bc9b5)

// sumOf is the best checksum that an object's server keeps of its whole content.
func sumOf(c bucket.Cargo) (expectedSum, bool) {
	for _, s := range checksums {
		if want := c.Sums[s.name]; want != "" {
			return expectedSum{s.name, s.make(), want}, true
		}
	}
	return expectedSum{}, false
}

// checkSums reads the content and compares its checksum, if the source keeps one.
func checkSums(c bucket.Cargo, content io.Reader) error {
	s, ok := sumOf(c)
	if !ok {
		return nil
	}
	if _, err := io.Copy(s.hash, content); err != nil {
		return err
	}
	return s.right()
}

// etagSum is the name of an ETag that is an MD5, which is written in hexadecimal.
const etagSum = "ETag"

// wholeSums are the hashes to make of the content of a large object: those that the source tells of the whole, and the SHA-256 where the
// manifest of a dump may name it.
func wholeSums(c bucket.Cargo, named bool) []expectedSum {
	var all []expectedSum
	if hashed(c.Object) {
		all = append(all, expectedSum{etagSum, md5.New(), md5ETag(c.ETag)})
	}
	if s, ok := sumOf(c); ok {
		all = append(all, s)
	}
	if named {
		all = append(all, expectedSum{name: "sha256", hash: sha256.New()})
	}
	return all
}

func (s expectedSum) right() error {
	if s.want == "" {
		return nil
	}
	sum := s.hash.Sum(nil)
	got := base64.StdEncoding.EncodeToString(sum)
	if s.name == etagSum {
		got = hex.EncodeToString(sum)
	}
	if got != s.want {
		return fmt.Errorf("its source's %s is %s and the bytes that came have %s", s.name, s.want, got)
	}
	return nil
}

func (t *turns) right() error {
	for _, h := range t.hashes {
		if err := h.right(); err != nil {
			return err
		}
	}
	return nil
}

// told says whether the source tells any hash of the whole.
func (t *turns) told() bool {
	return slices.ContainsFunc(t.hashes, func(h expectedSum) bool { return h.want != "" })
}

// note keeps the SHA-256 of what was carried.
func (t *turns) note(f *sumsFile, key string) {
	for _, h := range t.hashes {
		if h.name == "sha256" && h.want == "" {
			f.put(key, [sha256.Size]byte(h.hash.Sum(nil)))
		}
	}
}

// sumsFile keeps the SHA-256 of every object that was carried, for the manifests that come at the end: on disk, because there may be
// millions.
type sumsFile struct {
	mu     sync.Mutex
	file   *os.File
	out    *bufio.Writer
	blocks []sumsBlock
	err    error
}

// sumsBlock is a stretch of the file with the least and the greatest key in it. Objects are carried in about their order, so what a
// manifest names stands in few of them.
type sumsBlock struct {
	offset, length int64
	first, last    string
}

// sumsInBlock is how many bytes a block has, or a little more.
const sumsInBlock = 256 << 10

func newSumsFile(dir string) (*sumsFile, error) {
	f, err := os.Create(filepath.Join(dir, "sums"))
	if err != nil {
		return nil, fault.Wrap(err, fault.StateUnusable, dir, "a file for checksums cannot be made")
	}
	return &sumsFile{file: f, out: bufio.NewWriterSize(f, 32<<10)}, nil
}

func (s *sumsFile) put(key string, sum [sha256.Size]byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	var head [4]byte
	binary.LittleEndian.PutUint32(head[:], uint32(len(key)))
	for _, part := range [][]byte{head[:], []byte(key), sum[:]} {
		if _, err := s.out.Write(part); err != nil {
			s.err = fault.Wrap(err, fault.StateUnusable, s.file.Name(), "checksums cannot be kept")
			return
		}
	}
	s.count(key, int64(len(head)+len(key)+len(sum)))
}

// count notes a record of so many bytes.
func (s *sumsFile) count(key string, length int64) {
	n := len(s.blocks)
	if n == 0 || s.blocks[n-1].length >= sumsInBlock {
		begin := int64(0)
		if n > 0 {
			begin = s.blocks[n-1].offset + s.blocks[n-1].length
		}
		s.blocks = append(s.blocks, sumsBlock{offset: begin, first: key, last: key})
		n++
	}
	b := &s.blocks[n-1]
	b.length += length
	b.first, b.last = min(b.first, key), max(b.last, key)
}

// find fills in the sums of the keys that are asked for; the last one of a key counts.
func (s *sumsFile) find(want map[string]*[sha256.Size]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		s.err = s.out.Flush()
	}
	if s.err != nil {
		return s.err
	}
	keys := slices.Sorted(maps.Keys(want))
	for _, b := range s.blocks {
		if i, _ := slices.BinarySearch(keys, b.first); i == len(keys) || keys[i] > b.last {
			continue
		}
		if err := b.find(s.file, want); err != nil {
			return fault.Wrap(err, fault.StateUnusable, s.file.Name(), "checksums cannot be read back")
		}
	}
	return nil
}

func (b *sumsBlock) find(file io.ReaderAt, want map[string]*[sha256.Size]byte) error {
	in := bufio.NewReaderSize(io.NewSectionReader(file, b.offset, b.length), 64<<10)
	for {
		var head [4]byte
		if _, err := io.ReadFull(in, head[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		record := make([]byte, int(binary.LittleEndian.Uint32(head[:]))+sha256.Size)
		if _, err := io.ReadFull(in, record); err != nil {
			return err
		}
		key := string(record[:len(record)-sha256.Size])
		if _, asked := want[key]; asked {
			sum := [sha256.Size]byte(record[len(record)-sha256.Size:])
			want[key] = &sum
		}
	}
}

func (s *sumsFile) close() {
	if s != nil {
		s.file.Close()
	}
}
