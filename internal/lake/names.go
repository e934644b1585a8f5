package lake

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/apache/iceberg-go"
)

// avroName makes a name one that Avro takes, as Iceberg's reference implementation does (AvroSchemaUtil.sanitize): a character that is
// no ASCII letter, digit or '_' becomes _x and its UTF-16 code in hexadecimal digits, and a digit at the front gets '_' before it.
func avroName(name string) string {
	var b strings.Builder
	for i, r := range name {
		switch {
		case r == '_', r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', i > 0 && r >= '0' && r <= '9':
			b.WriteRune(r)
		case r >= '0' && r <= '9':
			b.WriteString("_" + string(r))
		default:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, "_x%X", unit)
			}
		}
	}
	return b.String()
}

// avroSpec is a partition spec for manifests, whose fields are named so that Avro takes them. Readers know them by their ids.
func avroSpec(spec iceberg.PartitionSpec) iceberg.PartitionSpec {
	fields, odd, taken := []iceberg.PartitionField{}, false, map[string]bool{}
	for _, f := range spec.Fields() {
		name := avroName(f.Name)
		for taken[name] {
			name += "_"
		}
		taken[name], odd = true, odd || name != f.Name
		f.Name = name
		fields = append(fields, f)
	}
	if !odd {
		return spec
	}
	return iceberg.NewPartitionSpecID(spec.ID(), fields...)
}

// mostFolder is how many bytes the name of a partition's folder has at most: stores and file systems bound names and whole keys, and
// what a partition's value is stands elsewhere.
const mostFolder = 150

// folderName is the name of a partition's folder, or its beginning and a hash where it is too long.
func folderName(name, value string) string {
	folder := name + "=" + value
	if len(folder) <= mostFolder {
		return folder
	}
	sum := sha256.Sum256([]byte(folder))
	cut := folder[:mostFolder-17]
	if i := strings.LastIndexByte(cut, '%'); i > len(cut)-3 { // no half of an escape
		cut = cut[:i]
	}
	if len(name) >= len(cut) {
		cut = name[:min(len(name), mostFolder/2)] + "="
	}
	return cut + "~" + hex.EncodeToString(sum[:8])
}
