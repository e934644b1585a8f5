package config

// Mirror says what leat mirror carries, and how.
type Mirror struct {
	Name           string      `yaml:"name" default:"mirror" doc:"Name of the mirror: its report is called after it."`
	Include        []string    `yaml:"include" doc:"Objects to carry: * and ? stop at a slash, ** does not; without a slash the last part of the key is matched. Empty takes all."`
	Exclude        []string    `yaml:"exclude" doc:"Objects to leave out again; they are not deleted either."`
	NewerThan      Duration    `yaml:"newer_than" default:"0s" doc:"Only objects written within this time; 0s does not ask."`
	OlderThan      Duration    `yaml:"older_than" default:"0s" doc:"Only objects written before this time; 0s does not ask."`
	FirstDate      string      `yaml:"first_date" doc:"First date folder to carry, YYYY-MM-DD; objects outside of date folders are left out then."`
	LastDate       string      `yaml:"last_date" doc:"Last date folder to carry."`
	Delete         bool        `yaml:"delete" default:"false" doc:"Delete what the source no longer has."`
	MaxDelete      int         `yaml:"max_delete" default:"1000" min:"0" max:"1000000000" doc:"Most objects that one run may delete; with more it deletes none."`
	MaxDeleteShare int         `yaml:"max_delete_share" default:"25" min:"0" max:"100" doc:"Percent by which the source may list fewer objects than the target has; with more missing, and more than 20 of them, nothing is deleted. 100 does not look."`
	Archived       Archived    `yaml:"archived" default:"fail" doc:"What becomes of objects that lie in an archive (GLACIER, DEEP_ARCHIVE, archive tiers): fail reports each; skip leaves them out and counts them; restore asks the source for them, and a later run carries them."`
	RestoreDays    int         `yaml:"restore_days" default:"7" min:"1" max:"365" doc:"Days that a restored object can be read, with mirror.archived restore."`
	RestoreTier    RestoreTier `yaml:"restore_tier" default:"Standard" doc:"How fast the archive is asked to be; Bulk costs least and takes longest."`
	StorageClass   string      `yaml:"storage_class" doc:"Storage class that objects are written with: keep asks for the source's, where the target takes it; a name, such as STANDARD_IA, for that one. Empty leaves it to the target. Objects that come without the source's are counted."`
	ObjectLock     ObjectLock  `yaml:"object_lock" default:"off" doc:"keep carries the retention and the legal hold of Object Lock to a bucket that has it, and reads them back; follow looks also at each object that the target has already, at a request or more each, and prolongs what became longer at the source; off counts the objects that have one."`
	ACL            ACLLook     `yaml:"acl" default:"off" doc:"count asks the source for the list of grants of each object that is carried, at one request each, and counts those that give a right to anybody but the bucket's owner. Lists of grants are never carried."`
	Parallel       int         `yaml:"parallel" default:"0" min:"0" max:"256" doc:"Objects on their way at once; 0 is eight for each of the processor's cores, at most 32."`
	MaxRate        Rate        `yaml:"max_rate" default:"0" doc:"Most bytes read in a second, all objects together; 0 is no limit."`
	Attempts       int         `yaml:"attempts" default:"8" min:"1" max:"100" doc:"Attempts at one object before it is set aside; the pauses between eight come to about a minute."`
	Stall          Duration    `yaml:"stall" default:"60s" doc:"How long a request may make no progress before it is given up and tried again."`
	Every          Duration    `yaml:"every" default:"5m" doc:"Pause between two runs of --watch."`
	WorkDir        string      `yaml:"work_dir" doc:"Local folder for what has to wait for its turn; empty is the system's for temporary files."`
	Metrics        string      `yaml:"metrics" doc:"Address for /metrics, /healthz and /readyz with --watch; empty opens none."`
	MetricsToken   Secret      `yaml:"metrics_token" doc:"Bearer token that /metrics asks for; required off loopback."`
	From           MirrorFrom  `yaml:"from" doc:"The bucket to read. A plain text is mirror.from.url."`
	To             MirrorTo    `yaml:"to" doc:"The bucket to write. A plain text is mirror.to.url."`
}

// MirrorFrom says how to reach the bucket that is read.
type MirrorFrom struct {
	URL             string `yaml:"url" short:"true" ambient:"INPUT_PATH" doc:"s3://bucket/path, or any other place that leat can write to. INPUT_PATH is bucket/path."`
	Endpoint        string `yaml:"endpoint" ambient:"INPUT_URL" doc:"Address of the object store; empty is AWS."`
	Region          string `yaml:"region" doc:"Empty takes AWS_REGION or the AWS configuration's."`
	PathStyle       Toggle `yaml:"path_style" default:"auto" doc:"Whether the bucket stands in the path instead of the host name; auto is true with an endpoint."`
	CAFile          string `yaml:"ca_file" doc:"File with CA certificates to trust besides the system's, for this side alone."`
	Proxy           string `yaml:"proxy" doc:"HTTP proxy for this side alone, http://host:port; empty takes HTTPS_PROXY and the like."`
	AllowHTTP       bool   `yaml:"allow_http" default:"false" doc:"Allow an http:// endpoint off loopback: data and signatures go unencrypted."`
	AccessKeyID     Secret `yaml:"access_key_id" ambient:"INPUT_ACCESS_KEY_ID" doc:"Empty takes the AWS SDK's default chain."`
	SecretAccessKey Secret `yaml:"secret_access_key" ambient:"INPUT_SECRET_ACCESS_KEY" doc:"Belongs to access_key_id."`
	SessionToken    Secret `yaml:"session_token" doc:"For temporary credentials."`
	RequesterPays   bool   `yaml:"requester_pays" default:"false" doc:"Take the costs of requests to a bucket whose owner has requesters pay (x-amz-request-payer)."`
}

// MirrorTo says how to reach the bucket that is written.
type MirrorTo struct {
	URL             string     `yaml:"url" short:"true" ambient:"OUTPUT_PATH" doc:"As mirror.from.url. OUTPUT_PATH is bucket/path."`
	Endpoint        string     `yaml:"endpoint" ambient:"OUTPUT_URL" doc:"Address of the object store; empty is AWS."`
	Region          string     `yaml:"region" doc:"Empty takes AWS_REGION or the AWS configuration's."`
	PathStyle       Toggle     `yaml:"path_style" default:"auto" doc:"As for mirror.from."`
	CAFile          string     `yaml:"ca_file" doc:"File with CA certificates to trust besides the system's, for this side alone."`
	Proxy           string     `yaml:"proxy" doc:"HTTP proxy for this side alone, http://host:port; empty takes HTTPS_PROXY and the like."`
	AllowHTTP       bool       `yaml:"allow_http" default:"false" doc:"Allow an http:// endpoint off loopback: data and signatures go unencrypted."`
	AccessKeyID     Secret     `yaml:"access_key_id" ambient:"OUTPUT_ACCESS_KEY_ID" doc:"Empty takes the AWS SDK's default chain."`
	SecretAccessKey Secret     `yaml:"secret_access_key" ambient:"OUTPUT_SECRET_ACCESS_KEY" doc:"Belongs to access_key_id."`
	SessionToken    Secret     `yaml:"session_token" doc:"For temporary credentials."`
	Encryption      Encryption `yaml:"encryption" default:"none" doc:"Server-side encryption asked for with every object; none leaves it to the bucket's default."`
	KMSKeyID        string     `yaml:"kms_key_id" doc:"Key for aws:kms; empty takes the account's."`
	RequesterPays   bool       `yaml:"requester_pays" default:"false" doc:"Take the costs of requests to a bucket whose owner has requesters pay (x-amz-request-payer)."`
	ACL             ACL        `yaml:"acl" default:"none" doc:"Grants that objects are written with: bucket-owner-full-control gives them to the owner of a bucket of another account; none leaves it to the bucket."`
}

// The variables of the sync job of MinIO's client.
const (
	inputPath  = "INPUT_PATH"
	outputPath = "OUTPUT_PATH"
)

// MirrorDropIn says that leat stands in for that job: both places came from its variables.
func (c *Config) MirrorDropIn() bool {
	return c.given["mirror.from.url"].place == inputPath && c.given["mirror.to.url"].place == outputPath
}
