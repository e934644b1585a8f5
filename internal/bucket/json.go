package bucket

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// What programs write has far fewer objects than bytes; a text of "{}," holds one in three bytes, each of which takes a hundred in memory.
const (
	fewObjects  = 100_000
	bytesObject = 32
)

// DecodeJSON is json.Unmarshal for what lies in a bucket, where other programs write too: what would take far more memory than its bytes is
// an error. encoding/json itself bounds how deep values lie in one another.
func DecodeJSON(data []byte, into any) error {
	if n := bytes.Count(data, []byte("{")); n > fewObjects+len(data)/bytesObject {
		return fmt.Errorf("%d objects in %d bytes of JSON are more than any program of ours writes", n, len(data))
	}
	return json.Unmarshal(data, into)
}
