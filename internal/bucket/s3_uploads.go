package bucket

import (
	"bytes"
	"context"
	"iter"
	"net/url"
	"strings"
	"time"
)

// s3Begun is an upload in parts that was begun and not ended.
type s3Begun struct {
	key, id string
	begun   time.Time
}

// s3BegunPage is a page of a listing of them.
type s3BegunPage struct {
	found           []s3Begun
	more, encoded   bool
	nextKey, nextID string
}

// uploads lists what was begun for keys with a prefix and not ended. It reads the answer itself, as [s3Bucket.List] does: the SDK's reader refuses
// characters that XML does not have. Keys are not asked for as in a URL: Ceph writes them so and does not say it.
func (b *s3Bucket) uploads(ctx context.Context, prefix string) iter.Seq2[s3Begun, error] {
	return func(yield func(s3Begun, error) bool) {
		at, err := b.courier()
		if err != nil {
			yield(s3Begun{}, err)
			return
		}
		query := url.Values{"uploads": {""}, "prefix": {b.at.root + prefix}}
		var body bytes.Buffer
		var passed tokens
		for {
			var page s3BegunPage
			err := b.patiently(ctx, func() error { return b.readXML(ctx, at, "", query, &body, page.read) })
			if err == nil && page.more && passed.again(page.nextKey+"\x00"+page.nextID) {
				err = badXML("the list of unfinished uploads goes on where it was before")
			}
			if err != nil {
				yield(s3Begun{}, b.fault(ctx, err, "s3:ListBucketMultipartUploads", prefix))
				return
			}
			for _, u := range page.found {
				// Prefix again: a server that ignores it must not cost others their uploads.
				key, below := strings.CutPrefix(u.key, b.at.root)
				if below && strings.HasPrefix(key, prefix) && !yield(s3Begun{key, u.id, u.begun}, nil) {
					return
				}
			}
			if !page.more {
				return
			}
			query.Set("key-marker", page.nextKey)
			query.Set("upload-id-marker", page.nextID)
		}
	}
}

// read reads the answer to ListMultipartUploads.
func (p *s3BegunPage) read(text []byte) error {
	*p = s3BegunPage{}
	s := xmlScanner{text: text}
	err := s.document("ListMultipartUploadsResult", func(t xmlTag) (err error) {
		var value []byte
		switch string(t.local()) {
		case "Upload":
			return p.upload(&s, t)
		case "IsTruncated":
			value, err = s.leaf(t)
			p.more = string(value) == "true"
		case "EncodingType":
			value, err = s.leaf(t)
			p.encoded = string(value) == "url"
		case "NextKeyMarker":
			value, err = s.leaf(t)
			p.nextKey = string(value)
		case "NextUploadIdMarker":
			value, err = s.leaf(t)
			p.nextID = string(value)
		default:
			err = s.skip(t)
		}
		return err
	})
	if err != nil {
		return err
	}
	for i := range p.found {
		u := &p.found[i]
		if p.encoded {
			key, ok := unescapeQuery([]byte(u.key))
			if !ok {
				return badXML("a key is not written as in a URL")
			}
			u.key = string(key)
		}
		// The page goes on behind its last upload. Servers differ in how they write the marker.
		p.nextKey, p.nextID = u.key, u.id
	}
	if p.more && p.nextKey == "" {
		return badXML("it says that there is more and not where")
	}
	return nil
}

func (p *s3BegunPage) upload(s *xmlScanner, upload xmlTag) error {
	if upload.empty {
		return badXML("an upload has no key")
	}
	var u s3Begun
	for {
		t, err := s.tag()
		if err != nil {
			return err
		}
		if t.closes {
			p.found = append(p.found, u)
			return upload.closedBy(t)
		}
		var text []byte
		switch string(t.local()) {
		case "Key":
			text, err = s.leaf(t)
			u.key = string(text)
		case "UploadId":
			text, err = s.leaf(t)
			u.id = string(text)
		case "Initiated":
			if text, err = s.leaf(t); err == nil && u.begun.UnmarshalText(text) != nil {
				err = badXML("Initiated is %q", text)
			}
		default:
			err = s.skip(t)
		}
		if err != nil {
			return err
		}
	}
}
