package bucket

import (
	"context"
	"iter"
	"time"
)

// Keeper is a Bucket whose settings can be looked at, changed and put to the proof. A setting that nobody made is the zero value, not
// an error. Errors are faults as for Bucket, and two of them are answers: bucket-unsupported, the server lacks the API or takes the
// request and does nothing; bucket-rights, these keys may not.
type Keeper interface {
	Bucket
	// Place is the name of the bucket and the path that keys are relative to: "" or one that ends with a slash.
	Place() (name, root string)
	// Server finds out whose server it is.
	Server(ctx context.Context) (Server, error)
	// Make makes the bucket, if it does not exist, and says whether it did: bucket-foreign if it is somebody else's.
	Make(ctx context.Context) (made bool, err error)

	// Encryption is how objects are encrypted that ask for nothing.
	Encryption(ctx context.Context) (Encryption, error)
	SetEncryption(ctx context.Context, e Encryption) error
	// Expiries are the rules of the bucket's lifecycle, as far as they remove anything.
	Expiries(ctx context.Context) ([]Expiry, error)
	// SetExpiry adds a rule or replaces the one with its ID; all other rules stay. A rule that removes nothing is taken away.
	SetExpiry(ctx context.Context, e Expiry) error
	// PublicBlock is what the server refuses to make public.
	PublicBlock(ctx context.Context) (PublicBlock, error)
	SetPublicBlock(ctx context.Context, p PublicBlock) error
	// Versioning is "", "Enabled" or "Suspended".
	Versioning(ctx context.Context) (string, error)
	SetVersioning(ctx context.Context) error
	// Policy is the bucket's policy in JSON, "" for none.
	Policy(ctx context.Context) (string, error)
	SetPolicy(ctx context.Context, policy string) error
	// Restate writes each setting that can be read and has been made once more, as it is, and says which of them these keys could
	// have changed. Nothing is different after it.
	Restate(ctx context.Context) ([]Restated, error)

	// Put writes a small scratch object, asking for the encryption of the options or for none.
	Put(ctx context.Context, key string, asking bool) error
	// Look says how an object is kept.
	Look(ctx context.Context, key string) (Sight, error)
	// Anonymous sends a request without any credentials about an object, or about the bucket if the key is empty, and returns the
	// status of the answer.
	Anonymous(ctx context.Context, method, key string) (status int, err error)
	// Buckets are the names of all buckets that the server tells these keys.
	Buckets(ctx context.Context) ([]string, error)
	// Lists says whether these keys list a bucket of that name.
	Lists(ctx context.Context, name string) (bool, error)
	// Writes says whether these keys write at the top of a bucket of that name. Nothing is written: a part of an upload is sent that
	// nobody began.
	Writes(ctx context.Context, name string) (bool, error)
	// Beside lists a few keys and folders of the bucket that do not lie below the path.
	Beside(ctx context.Context) ([]string, error)
	// OldVersions are the versions below the path that were replaced or deleted, in byte order of keys.
	OldVersions(ctx context.Context) iter.Seq2[Object, error]
}

// Server is whose S3 a server speaks.
type Server string

// The servers that differ in what leat says to them.
const (
	ServerAWS   Server = "aws"
	ServerCeph  Server = "ceph"
	ServerOther Server = "other"
)

// Encryption is a default encryption at rest.
type Encryption struct {
	Algorithm string // "", "AES256" or "aws:kms"
	KeyID     string // for aws:kms; "" for the account's key
}

// Expiry is what a rule of the lifecycle removes. Numbers of days are 0 where it does not.
type Expiry struct {
	ID             string
	Enabled        bool
	Prefix         string // of keys, from the bucket's top
	Narrow         bool   // it holds for some objects below the prefix only: by tag or size
	Days           int    // of age after which objects go
	NoncurrentDays int    // after which versions go that are no longer current
	AbortDays      int    // after which unfinished uploads go
}

// PublicBlock says which ways of making a bucket public the server refuses or ignores.
type PublicBlock struct {
	RefuseACLs    bool // requests that would make something public by a list of grants
	IgnoreACLs    bool // lists of grants that do
	RefusePolicy  bool // policies that would make the bucket public
	RestrictToOwn bool // the rest of a public policy: only the owner's account gets in
}

// Restated is a setting that was written once more as it is.
type Restated struct {
	Setting string // "policy", "lifecycle", …
	Right   string // the permission that it takes
	Err     error  // nil: these keys could have changed it
}

// Sight is how the server keeps an object.
type Sight struct {
	Encryption string    // as the server tells it; "" where it tells of none
	Expires    time.Time // when the lifecycle removes it; zero where the server tells of no such time
}

// KeeperOf returns the bucket as a Keeper, if its kind is one.
func KeeperOf(b Bucket) (Keeper, bool) {
	if f, ok := b.(*front); ok {
		b = f.Bucket
	}
	k, ok := b.(Keeper)
	return k, ok
}

// Split is kind, name and path of a bucket's URL, without opening it; the path is "" or ends with a slash.
func Split(rawURL string) (kind Kind, name, root string, err error) {
	at, err := parse(rawURL)
	return at.kind, at.name, at.root, err
}
