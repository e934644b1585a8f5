package mirror

import (
	"maps"
	"time"

	"github.com/leatdata/leat/internal/bucket"
)

// Attribute is something that an object has beside its bytes.
type Attribute string

// Fate is what becomes of an attribute.
type Fate string

// The fates.
const (
	FateCarried Fate = "carried"                        // as the source tells it
	FateSet     Fate = "set"                            // by the target or by leat's settings
	FateCounted Fate = "not carried"                    // and counted in the report
	FateChoice  Fate = "by choice"                      // else not carried, and counted
	FateAsked   Fate = "not carried, counted by choice" // nothing tells of it without another request for each object
)

// The attributes that are counted where they are not carried.
const (
	AttributeContent  Attribute = "content-headers"
	AttributeMetadata Attribute = "metadata"
	AttributeTags     Attribute = "tags"
	AttributeRedirect Attribute = "website-redirect"
	AttributeClass    Attribute = "storage-class"
	AttributeLock     Attribute = "object-lock"
	AttributeACL      Attribute = "acl"
)

// Attributes are all that an object has, and what a mirror does with each: to another S3 bucket, and to any other kind of place.
var Attributes = []struct {
	What    string
	Counted Attribute // "" where it is never counted
	S3      Fate
	Other   Fate
	Note    string
}{
	{"bytes", "", FateCarried, FateCarried, "compared with the listing, the answer's headers and all checksums that the source tells"},
	{"Content-Type", "", FateCarried, FateCarried, ""},
	{"Cache-Control, Content-Encoding, Content-Disposition, Content-Language, Expires", AttributeContent, FateCarried, FateCounted, "in the source's own words"},
	{"metadata (x-amz-meta-…)", AttributeMetadata, FateCarried, FateCarried, "byte for byte as the source tells it: empty values too, text outside of ASCII as RFC 2047 or UTF-8. Other kinds of place keep names of a-z, 0-9 and - with printable ASCII; what they cannot keep, and what the source itself cannot say, is counted"},
	{"leat-write, leat-origin in the metadata", "", FateSet, FateSet, "leat's own marks of a write, and of the source's ETag"},
	{"tags", AttributeTags, FateCarried, FateCounted, "read back at the target where an object has some, and set again if it took others. Keys without s3:GetObjectTagging are not told of any"},
	{"website redirect", AttributeRedirect, FateCarried, FateCounted, ""},
	{"storage class", AttributeClass, FateChoice, FateCounted, "mirror.storage_class: keep asks for the source's, a name for that one, and what the target has then is read back; by default the target's usual one is taken, because classes have other names on each server"},
	{"Object Lock: retention, legal hold", AttributeLock, FateChoice, FateCounted, "mirror.object_lock: keep carries them to a bucket with Object Lock and reads them back; follow looks at them again on each run; by default the target bucket's own retention holds. A retention that has ended is none. Keys without s3:GetObjectRetention and s3:GetObjectLegalHold are not told of any"},
	{"encryption at rest", "", FateSet, FateSet, "by mirror.to.encryption, or the target's default"},
	{"checksums (CRC64NVME, CRC32C, CRC32, SHA-256, SHA-1)", "", FateSet, FateSet, "the source's are compared with the bytes; the target keeps those that it makes. Uploads have a SHA-256 in their signature, and a Content-MD5 where the bucket wants one, as with Object Lock"},
	{"ETag, parts", "", FateCarried, FateSet, "where the target makes ETags of MD5s: an object goes in the parts of its source"},
	{"time of writing, owner, version", "", FateSet, FateSet, "only the current version is carried"},
	{"lists of grants (ACL)", AttributeACL, FateAsked, FateAsked, "they name users of the source's server. mirror.acl: count asks for that of each object that is carried, at one request each, and counts those that give a right to anybody but the bucket's owner; a bucket whose owner owns all that is in it is not asked"},
}

// missedBy are the attributes of an object that do not come with it to an S3 bucket, unless they are asked for. The storage class does not count where one was chosen.
func missedBy(c bucket.Cargo, chosen bool, now time.Time) (missed []Attribute) {
	if !chosen && classOf(c) != usualClass {
		missed = append(missed, AttributeClass)
	}
	if c.Lock.Holds(now) {
		missed = append(missed, AttributeLock)
	}
	if c.Illegible {
		missed = append(missed, AttributeMetadata)
	}
	return missed
}

// missedElsewhere are those that do not come with it to another kind of place, which cannot keep lost of its metadata.
func missedElsewhere(c bucket.Cargo, lost bool, now time.Time) []Attribute {
	missed := missedBy(c, false, now)
	if c.CacheControl+c.ContentEncoding+c.ContentDisposition+c.ContentLanguage+c.Expires != "" {
		missed = append(missed, AttributeContent)
	}
	if lost && !c.Illegible {
		missed = append(missed, AttributeMetadata)
	}
	if c.Tagged {
		missed = append(missed, AttributeTags)
	}
	if c.WebsiteRedirect != "" {
		missed = append(missed, AttributeRedirect)
	}
	return missed
}

// keepable is the metadata that every kind of place can keep, and whether there is more.
func keepable(metadata map[string]string) (kept map[string]string, lost bool) {
	kept = maps.Clone(metadata)
	maps.DeleteFunc(kept, func(k, v string) bool { return !bucket.Keepable(k, v) })
	return kept, len(kept) < len(metadata)
}
