package config

// Config is everything leat can be told. A field's tags are its documentation: yaml is the
// key, default the text it is preset from, doc the meaning, ambient the variables of other
// tools that are read when nothing else gives the key. A field tagged short takes the value
// when its section is written as plain text (to: s3://bucket/path). The version has no
// variable (env:"-"): images commonly set one named like it to the program's own version.
type Config struct {
	Version int    `yaml:"version" env:"-" default:"1" doc:"Version of this schema; 1 is the only one."`
	From    From   `yaml:"from" doc:"The database to read. A plain text is from.url."`
	To      To     `yaml:"to" doc:"The object store or folder to write to. A plain text is to.url."`
	Dump    Dump   `yaml:"dump" doc:"What leat dump does."`
	Run     Run    `yaml:"run" doc:"What leat run follows, and how."`
	Lake    Lake   `yaml:"lake" doc:"How tables lie in the lake."`
	Mirror  Mirror `yaml:"mirror" doc:"What leat mirror carries from which bucket to which."`
	Log     Log    `yaml:"log" doc:"What leat tells about its work, on standard error."`

	// DropIn says that there was no file and that the target came from S3_OUTPUT: leat stands
	// in for the old dump job and logs as it did.
	DropIn bool `yaml:"-"`

	given map[string]given
}

// From says how to reach PostgreSQL. What it leaves out comes from libpq's own ways: PG*
// variables, the service file and .pgpass.
type From struct {
	URL             string   `yaml:"url" short:"true" doc:"postgres://user@host:port/database?option=value, or libpq's keyword=value form. Empty takes PGHOST, PGPORT, PGUSER, PGDATABASE, PGSERVICE. A password does not belong here."`
	Password        Secret   `yaml:"password" doc:"Empty takes PGPASSWORD, the service file or .pgpass."`
	SSLMode         SSLMode  `yaml:"sslmode" doc:"Empty takes the url's, PGSSLMODE or the service file's; where none says, require for a host in the network and prefer for a socket or loopback."`
	SSLRootCert     string   `yaml:"sslrootcert" doc:"File with the CA certificates to trust, or system."`
	SSLCert         string   `yaml:"sslcert" doc:"File with the client certificate."`
	SSLKey          string   `yaml:"sslkey" doc:"File with the client certificate's key."`
	IAM             IAM      `yaml:"iam" default:"false" doc:"Log in with an RDS IAM token: a region such as eu-west-1, auto for the AWS configuration's region, or false."`
	ApplicationName string   `yaml:"application_name" default:"leat" doc:"The name seen in pg_stat_activity."`
	ConnectTimeout  Duration `yaml:"connect_timeout" default:"0s" doc:"Longest wait for a connection; 0s leaves it to PGCONNECT_TIMEOUT."`
}

// To says where the data goes.
type To struct {
	URL             string     `yaml:"url" short:"true" ambient:"S3_OUTPUT" doc:"s3://bucket/path, gs://bucket/path, azblob://container/path, file:///path or a plain path."`
	Endpoint        string     `yaml:"endpoint" ambient:"S3_ENDPOINT AWS_ENDPOINT_URL_S3 AWS_ENDPOINT_URL" doc:"Address of an object store other than the cloud's own, such as https://ceph.example.com. The ambient variables count for s3:// only."`
	Region          string     `yaml:"region" doc:"Empty takes AWS_REGION or the AWS configuration's."`
	PathStyle       Toggle     `yaml:"path_style" default:"auto" doc:"Whether the bucket stands in the path instead of the host name; auto is true with an endpoint."`
	CAFile          string     `yaml:"ca_file" doc:"File with CA certificates to trust besides the system's."`
	AllowHTTP       bool       `yaml:"allow_http" default:"false" doc:"Allow an http:// endpoint off loopback: data and signatures go unencrypted."`
	AccessKeyID     Secret     `yaml:"access_key_id" doc:"Empty takes the AWS SDK's default chain: environment, profile, web identity, instance role."`
	SecretAccessKey Secret     `yaml:"secret_access_key" doc:"Belongs to access_key_id."`
	SessionToken    Secret     `yaml:"session_token" doc:"For temporary credentials."`
	Encryption      Encryption `yaml:"encryption" default:"none" doc:"Server-side encryption asked for with every object; none leaves it to the bucket's default."`
	KMSKeyID        string     `yaml:"kms_key_id" doc:"Key for aws:kms; empty takes the account's."`
	Checksums       Checksums  `yaml:"checksums" default:"auto" doc:"Whether the S3 checksum headers are sent; auto leaves them out for servers other than AWS."`
	RequesterPays   bool       `yaml:"requester_pays" default:"false" doc:"Take the costs of requests to a bucket whose owner has requesters pay (x-amz-request-payer)."`
	ACL             ACL        `yaml:"acl" default:"none" doc:"Grants that objects are written with: bucket-owner-full-control gives them to the owner of a bucket of another account; none leaves it to the bucket."`
	PartSize        Size       `yaml:"part_size" default:"8MiB" doc:"Size of the first parts that a large object is sent in, 5MiB to 10MiB; they grow with the object."`
	Stall           Duration   `yaml:"stall" default:"60s" doc:"How long a request may make no progress before it is given up and tried again."`
}

// Dump says what leat dump reads and how it writes it.
type Dump struct {
	Tables           []Pattern       `yaml:"tables" ambient:"TABLES" doc:"Tables to dump: schema.name with * and ?; without a schema, searched in the search_path. Names are folded to lower case unless quoted: sales.\"Odd Name\"."`
	Exclude          []Pattern       `yaml:"exclude" doc:"Tables to leave out again."`
	Format           Format          `yaml:"format" default:"parquet" doc:"Format of the files."`
	Compression      Compression     `yaml:"compression" default:"zstd" doc:"Compression inside parquet and avro files (gzip is deflate in avro); the text formats have .gz instead."`
	Bloom            []ColumnPattern `yaml:"bloom" doc:"Columns that get a bloom filter in parquet: schema.table.column with * and ?. Columns whose type can have none are left out where a pattern with wildcards names them."`
	FileSize         Size            `yaml:"file_size" default:"256MiB" doc:"Size at which a new file of the same table is begun, at least 1MiB; layout date has one file a table whatever its size."`
	Layout           Layout          `yaml:"layout" default:"run" doc:"run: <to>/<YYYY-MM-DDTHHMMSSZ>/<schema>.<table>/<number>.<ext>; date: <to>/<YYYY-MM-DD>/<table>.<ext>."`
	Keep             int             `yaml:"keep" default:"0" min:"0" max:"100000" doc:"How many complete dumps are kept; older ones are deleted. 0 keeps all."`
	Parallel         int             `yaml:"parallel" default:"0" min:"0" max:"64" doc:"Connections that read at the same time; 0 is twice the processor's cores, at most 8."`
	MaxRate          Rate            `yaml:"max_rate" default:"0" doc:"Most bytes read from the database in a second, all connections together; 0 is no limit."`
	LockTimeout      Duration        `yaml:"lock_timeout" default:"10s" doc:"Longest wait for a table's lock; 0s waits for ever."`
	StatementTimeout Duration        `yaml:"statement_timeout" default:"0s" doc:"Longest time for one statement; 0s is no limit."`
	Partitions       Partitions      `yaml:"partitions" default:"leaf" doc:"Whether each leaf partition is dumped as a table of its own, or the partitioned root as one. The dump by TABLES and S3_OUTPUT has root, and besides each partition that TABLES names."`
	LSN              LSNMode         `yaml:"lsn" default:"auto" doc:"exact: the log position of the snapshot comes from a temporary replication slot; approximate: it is the server's position at that time; auto: exact where the rights allow it."`
	SlotWait         Duration        `yaml:"slot_wait" default:"10s" doc:"Longest wait for the temporary slot, which waits for transactions that were running."`
	CSVForm          CSVForm         `yaml:"csv_form" default:"exact" doc:"How csv writes values. exact: ISO dates, UTC, all digits, whatever the role or the database sets; role: as the role's own sessions do, which can lose digits and offsets, and which the manifest records (text_settings). The dump by TABLES and S3_OUTPUT has role."`
	GzipLevel        int             `yaml:"gzip_level" default:"2" min:"1" max:"9" doc:"Level of csv.gz and jsonl.gz: 2 takes a tenth of the CPU of gzip -6 for files about a fifth larger, 7 half of it for files within 5 % (docs/dump.md)."`
	CSVGenerated     bool            `yaml:"csv_generated" default:"false" doc:"Whether csv has generated columns too, which COPY leaves out; the other formats always have them."`
	Types            Types           `yaml:"types" doc:"What happens to values that a typed format cannot carry exactly. csv and jsonl carry everything and ignore it."`
}

// Types holds a policy for each class of types that has such values.
type Types struct {
	Numeric          Policy           `yaml:"numeric" default:"fail" doc:"numeric(p,s): NaN, and numbers that do not fit the decimal."`
	UnboundedNumeric UnboundedNumeric `yaml:"unbounded_numeric" default:"text" doc:"numeric without a precision: text, or decimal(p,s) with p at most 38; types.numeric rules what does not fit."`
	Date             Policy           `yaml:"date" default:"fail" doc:"date: infinity and -infinity."`
	Time             Policy           `yaml:"time" default:"fail" doc:"time: 24:00:00. text is also for readers that know no time (docs/readers.md)."`
	Timestamp        Policy           `yaml:"timestamp" default:"fail" doc:"timestamp: infinity, -infinity and years past 294246."`
	Timestamptz      Policy           `yaml:"timestamptz" default:"fail" doc:"timestamptz: the same."`
	UUID             UUIDForm         `yaml:"uuid" default:"uuid" doc:"uuid: as a uuid, or as text for readers that know none (docs/readers.md)."`
	Array            ArrayPolicy      `yaml:"array" default:"fail" doc:"Arrays: other dimensions than declared, or a lower bound other than 1."`
	Text             TextPolicy       `yaml:"text" default:"fail" doc:"Text of a SQL_ASCII database that is not UTF-8."`
}

// Log says what leat tells.
type Log struct {
	Level  LogLevel  `yaml:"level" default:"info" doc:"The least grave message that is shown."`
	Format LogFormat `yaml:"format" default:"auto" doc:"text: plain lines; json: an object a line; auto: a live view on a terminal and plain lines elsewhere."`
}

// Workers is the number of connections that read at the same time on a machine with so many cores.
func (d *Dump) Workers(cores int) int {
	if d.Parallel > 0 {
		return d.Parallel
	}
	return min(max(2*cores, 1), 8)
}
