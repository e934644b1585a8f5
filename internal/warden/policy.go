package warden

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Job is what keys are for.
type Job string

// The jobs that there are policies for, and the owner of the bucket, who needs none.
const (
	Dump   Job = "dump"
	Run    Job = "run"
	Sync   Job = "sync"   // the source of a mirror
	Target Job = "target" // the target of a mirror
	Owner  Job = "owner"
)

// Jobs are those that there are policies for.
var Jobs = []Job{Dump, Run, Sync, Target}

// rights of a job: on the objects below the path, and on the bucket. Reading and deleting belong to dump and run for their marks, for what
// killed runs left and for what is outdated. ListBucket is narrowed to the path where it can be: servers know no such condition for unfinished
// uploads, and only to those who may list all do they say that an object is not there, instead of refusing. A run must know that of its
// state, a mirror of objects that went meanwhile and of those that have not arrived.
var rights = map[Job]struct{ objects, bucket []string }{
	Dump: {[]string{"s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}, []string{"s3:ListBucketMultipartUploads"}},
	Run:  {[]string{"s3:PutObject", "s3:GetObject", "s3:DeleteObject", "s3:AbortMultipartUpload"}, []string{"s3:ListBucketMultipartUploads"}},
	Sync: {[]string{"s3:GetObject", "s3:GetObjectTagging"}, nil},
	Target: {
		[]string{"s3:PutObject", "s3:PutObjectTagging", "s3:GetObject", "s3:GetObjectTagging", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"},
		[]string{"s3:ListBucketMultipartUploads"},
	},
}

// choice is what a mirror's side needs too where the settings ask for more.
type choice struct{ objects, bucket []string }

var (
	// What tells of locks in the answers about objects, at the target to read back what was set.
	readsLocks = []string{"s3:GetObjectRetention", "s3:GetObjectLegalHold"}
	locks      = map[Job]choice{
		Sync:   {objects: readsLocks},
		Target: {slices.Concat(readsLocks, []string{"s3:PutObjectRetention", "s3:PutObjectLegalHold"}), []string{"s3:GetBucketObjectLockConfiguration"}},
	}
	// Who owns the bucket, whether its owner owns all that is in it, and whom each object's list names.
	looks = map[Job]choice{Sync: {[]string{"s3:GetObjectAcl"}, []string{"s3:GetBucketAcl", ownership}}}
)

// ownership is a right that Ceph does not know.
const ownership = "s3:GetBucketOwnershipControls"

// needs are the rights of a job with what the settings ask for.
func (o DraftOptions) needs() (onObjects, onBucket []string, known bool) {
	may, known := rights[o.Job]
	onObjects, onBucket = may.objects, may.bucket
	for _, more := range []struct {
		asked bool
		of    map[Job]choice
	}{{o.Locks, locks}, {o.ACLLook, looks}} {
		if more.asked {
			onObjects = slices.Concat(onObjects, more.of[o.Job].objects)
			onBucket = slices.Concat(onBucket, more.of[o.Job].bucket)
		}
	}
	if o.Grants && slices.Contains(onObjects, "s3:PutObject") {
		onObjects = slices.Concat(onObjects, []string{"s3:PutObjectAcl"})
	}
	if o.Server == bucket.ServerCeph {
		onBucket = slices.DeleteFunc(slices.Clone(onBucket), func(right string) bool { return right == ownership })
		if slices.Contains(onObjects, "s3:DeleteObject") {
			// Ceph 16 asks for it here before it looks, key by key, whether the objects may be deleted.
			onBucket = append(onBucket, "s3:DeleteObject")
		}
	}
	return onObjects, onBucket, known
}

// Document is a policy.
type Document struct {
	Version   string      `json:"Version"`
	Statement []Statement `json:"Statement"`
}

// Statement is a part of one.
type Statement struct {
	Sid       string              `json:"Sid"`
	Effect    string              `json:"Effect"`
	Principal map[string][]string `json:"Principal,omitempty"`
	Action    []string            `json:"Action"`
	Resource  []string            `json:"Resource"`
	Condition map[string]any      `json:"Condition,omitempty"`
}

// DraftOptions say for whom and for what a policy is.
type DraftOptions struct {
	Job        Job
	Server     bucket.Server
	Name, Root string // of the bucket; the path ends with a slash or is empty
	// Principal names whom it is for: an ARN; on AWS also the number of an account, on Ceph a user or tenant$user. Without one the
	// policy is for attaching to a user or role, which Ceph does not know.
	Principal string
	Grants    bool   // the job writes objects with a list of grants
	Locks     bool   // the mirror carries retention and legal hold
	ACLLook   bool   // the mirror counts objects by their lists of grants
	KMSKeyID  string // an ARN of a key that the objects are encrypted with; only in a policy for attaching
}

// Draft writes the least policy with which a job does its work.
func Draft(o DraftOptions) (Document, error) {
	onObjects, onBucket, known := o.needs()
	if !known {
		return Document{}, fault.New(fault.UsageInvalid, "--for "+string(o.Job), "there is no such job").WithMend("Choose one of %s.", jobNames())
	}
	who, err := principal(o)
	if err != nil {
		return Document{}, err
	}
	path, err := literal(o)
	if err != nil {
		return Document{}, err
	}
	arn := "arn:" + partition(o.Principal) + ":s3:::" + o.Name
	if tenant, name, ok := strings.Cut(o.Name, ":"); ok { // Ceph has the tenant in the place of the account
		arn = "arn:" + partition(o.Principal) + ":s3::" + tenant + ":" + name
	}
	objects, list := []string{arn + "/" + path + "*"}, Statement{Action: []string{"s3:ListBucket"}, Resource: []string{arn}}
	if o.Root != "" && o.Job == Dump {
		// Also without the slash: that is how a listing of the path itself is asked for.
		list.Condition = map[string]any{"StringLike": map[string][]string{"s3:prefix": {path + "*", strings.TrimSuffix(path, "/")}}}
	}
	d := Document{Version: "2012-10-17"}
	add := func(part string, s Statement) {
		s.Sid, s.Effect = sid(o, part), "Allow"
		if who != "" {
			s.Principal = map[string][]string{"AWS": {who}}
		}
		d.Statement = append(d.Statement, s)
	}
	add("Objects", Statement{Action: onObjects, Resource: objects})
	add("List", list)
	if len(onBucket) > 0 {
		add("Bucket", Statement{Action: onBucket, Resource: []string{arn}})
	}
	if o.KMSKeyID != "" && who == "" {
		actions := []string{"kms:Decrypt"}
		if o.Job != Sync {
			actions = append(actions, "kms:GenerateDataKey")
		}
		add("Key", Statement{Action: actions, Resource: []string{o.KMSKeyID}})
	}
	return d, nil
}

// literal is the path as it stands in a policy, where * and ? stand for any characters and ${ begins a variable: taken as they are they would let in
// more than the path. AWS has variables for these characters themselves
// (docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html); other servers have no way to say them.
func literal(o DraftOptions) (string, error) {
	path := strings.NewReplacer("*", "${*}", "?", "${?}", "${", "${$}{").Replace(o.Root)
	if path != o.Root && o.Server != bucket.ServerAWS {
		return "", fault.New(fault.UsageInvalid, o.Root, "a policy of this server cannot say a path with *, ? or ${: it would hold for other paths too").
			WithMend("Choose a path without these characters.")
	}
	return path, nil
}

func jobNames() string {
	var names []string
	for _, j := range Jobs {
		names = append(names, string(j))
	}
	return strings.Join(names, ", ")
}

// sid names a statement so that another draft for the same job, principal and path takes its place.
func sid(o DraftOptions, part string) string {
	return sidStart(o) + part + shortHash(o.Principal, o.Root)
}

func sidStart(o DraftOptions) string {
	return "Leat" + strings.ToUpper(string(o.Job[:1])) + string(o.Job[1:])
}

// replaces says whether a statement was made by an earlier draft of the same.
func (o DraftOptions) replaces(id string) bool {
	return strings.HasPrefix(id, sidStart(o)) && strings.HasSuffix(id, shortHash(o.Principal, o.Root))
}

func partition(arn string) string {
	if parts := strings.Split(arn, ":"); len(parts) > 2 && parts[0] == "arn" {
		return parts[1]
	}
	return "aws"
}

var (
	account  = regexp.MustCompile(`^[0-9]{12}$`)
	cephUser = regexp.MustCompile(`^(?:([^$:/*]+)\$)?([^$:/*]+)$`)
)

// principal is the ARN of whom the policy is for.
func principal(o DraftOptions) (string, error) {
	p := o.Principal
	switch {
	case strings.Contains(p, "*"):
		return "", fault.New(fault.UsageInvalid, "--principal "+p, "a policy for everybody is what an audit is there to find").WithMend("Name one user or role.")
	case strings.HasPrefix(p, "arn:"):
		return p, nil
	case o.Server == bucket.ServerCeph && p == "":
		return "", fault.New(fault.UsageInvalid, "--principal", "Ceph has policies of buckets only, and such a one must say whom it is for").
			WithMend("Give the user of the gateway: --principal USER or --principal 'TENANT$USER'.")
	case p == "":
		return "", nil
	case o.Server == bucket.ServerCeph && cephUser.MatchString(p):
		m := cephUser.FindStringSubmatch(p)
		return "arn:aws:iam::" + m[1] + ":user/" + m[2], nil
	case o.Server != bucket.ServerCeph && account.MatchString(p):
		return "arn:aws:iam::" + p + ":root", nil
	}
	return "", fault.New(fault.UsageInvalid, "--principal "+p, "it is not known whom that names").
		WithMend("Give an ARN, such as arn:aws:iam::123456789012:role/dump; on Ceph a user's name will do.")
}

// Apply makes the draft part of the bucket's policy: statements of an earlier draft for the same job, principal and path are replaced,
// all others stay.
func Apply(ctx context.Context, k bucket.Keeper, o DraftOptions) ([]Step, error) {
	draft, err := Draft(o)
	if err != nil {
		return nil, err
	}
	if o.Principal == "" {
		return nil, fault.New(fault.UsageInvalid, "--apply", "a bucket's policy must say whom it is for").WithMend("Add --principal.")
	}
	before, err := k.Policy(ctx)
	if err != nil {
		return nil, err
	}
	after, err := merge(before, draft, o)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("%s may do what %s needs below %s", o.Principal, o.Job, k.Properties().URL)
	if same(before, after) {
		return []Step{{Rule: "policy", Did: Kept, What: what}}, nil
	}
	steps, err := setPolicy(ctx, k, after)
	if err != nil {
		return steps, err
	}
	now, err := k.Policy(ctx)
	if err != nil {
		return steps, err
	}
	for _, statement := range draft.Statement { // not the text: AWS writes it in a way of its own
		if !strings.Contains(now, `"`+statement.Sid+`"`) {
			return steps, fault.New(fault.BucketUnsupported, k.Properties().URL, "the server took the policy and did not keep it")
		}
	}
	return append(steps, Step{Rule: "policy", Did: Set, What: what}), nil
}

// setPolicy sets a policy. Ceph 16 takes every policy for public and refuses it while public ones are blocked: there the block is lifted
// for the moment of the request.
func setPolicy(ctx context.Context, k bucket.Keeper, policy string) ([]Step, error) {
	err := k.SetPolicy(ctx, policy)
	if !fault.Is(err, fault.BucketRights) {
		return nil, err
	}
	server, serverErr := k.Server(ctx)
	block, blockErr := k.PublicBlock(ctx)
	if serverErr != nil || blockErr != nil || server != bucket.ServerCeph || !block.RefusePolicy {
		return nil, err
	}
	lifted := block
	lifted.RefusePolicy = false
	if liftErr := k.SetPublicBlock(ctx, lifted); liftErr != nil {
		return nil, err
	}
	err = k.SetPolicy(ctx, policy)
	if back := k.SetPublicBlock(context.WithoutCancel(ctx), block); back != nil {
		return nil, fault.Mended(back, "The block of public policies is off: leat bucket audit --fix sets it again.")
	}
	return []Step{{Rule: "public-block", Did: Kept, What: "this server refuses every policy while public ones are refused: the block was lifted for the moment of setting it"}}, err
}

// merge adds the draft's statements to a policy.
func merge(before string, draft Document, o DraftOptions) (string, error) {
	policy := map[string]json.RawMessage{}
	var statements []json.RawMessage
	if before != "" {
		if err := json.Unmarshal([]byte(before), &policy); err != nil {
			return "", fault.Wrap(err, fault.BucketFailed, "policy", "the bucket's policy cannot be understood")
		}
		if policy == nil { // the text was null
			policy = map[string]json.RawMessage{}
		}
		if err := json.Unmarshal(policy["Statement"], &statements); err != nil {
			statements = []json.RawMessage{policy["Statement"]} // one alone need not stand in a list
		}
	}
	statements = slices.DeleteFunc(statements, func(s json.RawMessage) bool {
		var has struct{ Sid string }
		return len(s) == 0 || json.Unmarshal(s, &has) == nil && o.replaces(has.Sid)
	})
	for _, s := range draft.Statement {
		data, err := json.Marshal(s)
		if err != nil {
			return "", fault.Wrap(err, fault.Internal, "policy", "it cannot be written")
		}
		statements = append(statements, data)
	}
	if len(policy["Version"]) == 0 {
		policy["Version"] = json.RawMessage(`"` + draft.Version + `"`)
	}
	data, err := json.Marshal(statements)
	if err == nil {
		policy["Statement"] = data
		data, err = json.Marshal(policy)
	}
	return string(data), fault.Wrap(err, fault.Internal, "policy", "it cannot be written")
}

// same says whether two policies are the same text but for white space and the order of fields; AWS puts them in an order of its own.
func same(x, y string) bool {
	plain := func(s string) string {
		var v any
		if json.Unmarshal([]byte(s), &v) != nil {
			return s
		}
		data, _ := json.Marshal(single(v)) // it was read from JSON
		return string(data)
	}
	return plain(x) == plain(y)
}

// single takes lists of one for their element, as AWS writes them.
func single(v any) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			v[i] = single(v[i])
		}
		if len(v) == 1 {
			return v[0]
		}
	case map[string]any:
		for name := range v {
			v[name] = single(v[name])
		}
	}
	return v
}
