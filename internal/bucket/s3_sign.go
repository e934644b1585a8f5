package bucket

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// s3Signer signs requests by Signature Version 4, as the SDK's signer does and with a third of its work
// (docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html).
type s3Signer struct {
	region string

	mu  sync.Mutex
	day string // the key's: it is made anew each day
	of  string // the secret that the key is of
	key []byte
}

const signatureV4 = "AWS4-HMAC-SHA256"

// sign puts the signature on a request with all the headers that it has so far. sum is the hex SHA-256 of the body; it stands in
// X-Amz-Content-Sha256 too. The query is key=value, sorted, as [url.Values.Encode] writes it.
func (s *s3Signer) sign(req *http.Request, c aws.Credentials, sum string, at time.Time) {
	stamp := at.UTC().Format("20060102T150405Z")
	scope := stamp[:8] + "/" + s.region + "/s3/aws4_request"
	req.Header.Del("Authorization") // of an attempt before
	req.Header.Del("X-Amz-Security-Token")
	req.Header["X-Amz-Date"] = []string{stamp}
	if c.SessionToken != "" {
		req.Header["X-Amz-Security-Token"] = []string{c.SessionToken}
	}
	req.URL.RawQuery = strings.ReplaceAll(req.URL.RawQuery, "+", "%20")
	names := make([]string, 1, 16)
	names[0] = "Host"
	for name := range req.Header {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(lowerHeader(a), lowerHeader(b)) })

	text := make([]byte, 0, 1<<10)
	text = append(append(text, req.Method...), '\n')
	text = append(append(text, req.URL.EscapedPath()...), '\n')
	text = append(append(text, req.URL.RawQuery...), '\n')
	signed := make([]byte, 0, 256)
	for i, name := range names {
		if i > 0 {
			signed = append(signed, ';')
		}
		signed = append(signed, lowerHeader(name)...)
		text = append(append(text, lowerHeader(name)...), ':')
		if name == "Host" {
			text = append(append(text, req.Host...), '\n')
			continue
		}
		for j, value := range req.Header[name] {
			if j > 0 {
				text = append(text, ',')
			}
			text = appendTrimmed(text, value)
		}
		text = append(text, '\n')
	}
	text = append(append(append(append(text, '\n'), signed...), '\n'), sum...)

	hash := sha256.Sum256(text)
	text = append(text[:0], signatureV4+"\n"...)
	text = append(append(text, stamp...), '\n')
	text = append(append(text, scope...), '\n')
	text = hex.AppendEncode(text, hash[:])
	signature := keyed(s.keyOf(stamp[:8], c.SecretAccessKey), text)

	text = append(text[:0], signatureV4+" Credential="...)
	text = append(append(append(text, c.AccessKeyID...), '/'), scope...)
	text = append(append(text, ", SignedHeaders="...), signed...)
	text = hex.AppendEncode(append(text, ", Signature="...), signature)
	req.Header["Authorization"] = []string{string(text)}
}

// keyOf is the key that a secret signs with on a day.
func (s *s3Signer) keyOf(day, secret string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.day != day || s.of != secret {
		key := keyed([]byte("AWS4"+secret), []byte(day))
		for _, part := range []string{s.region, "s3", "aws4_request"} {
			key = keyed(key, []byte(part))
		}
		s.day, s.of, s.key = day, secret, key
	}
	return s.key
}

func keyed(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}

// lowered are the names of headers that come with most requests.
var lowered = map[string]string{
	"Host": "host", "X-Amz-Content-Sha256": "x-amz-content-sha256", "X-Amz-Date": "x-amz-date", "X-Amz-Security-Token": "x-amz-security-token",
	"X-Amz-Request-Payer": "x-amz-request-payer",
	"Content-Type":        "content-type", "If-Match": "if-match", "Range": "range", "X-Amz-Checksum-Mode": "x-amz-checksum-mode",
}

func lowerHeader(name string) string {
	if low, ok := lowered[name]; ok {
		return low
	}
	return strings.ToLower(name)
}

// appendTrimmed appends a header's value as it is signed: without space around it, and with one space in the place of several.
func appendTrimmed(text []byte, value string) []byte {
	value = strings.Trim(value, " ")
	for i := range len(value) {
		if value[i] != ' ' || value[i-1] != ' ' {
			text = append(text, value[i])
		}
	}
	return text
}
