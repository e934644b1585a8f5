package config

import (
	"fmt"
	"strings"
)

// Run says what leat run follows and how.
type Run struct {
	Name             string         `yaml:"name" default:"leat" doc:"Name of the pipeline: small letters, digits and _. Slot, publication and saved state are called after it."`
	Tables           []Pattern      `yaml:"tables" doc:"Tables to follow, as in dump.tables; empty takes every table of the database."`
	Exclude          []Pattern      `yaml:"exclude" doc:"Tables to leave out again."`
	Keep             Keep           `yaml:"keep" default:"auto" doc:"current: one row a key, the latest state; history: every change, append-only; both; auto: both where the log tells a key, history where it does not."`
	KeepCurrent      []Pattern      `yaml:"keep_current" doc:"Tables that are kept as current only, whatever keep says."`
	KeepHistory      []Pattern      `yaml:"keep_history" doc:"Tables that are kept as history only, whatever keep says."`
	Partitions       Partitions     `yaml:"partitions" default:"root" doc:"Whether a partitioned table is followed as one, or each leaf as a table of its own."`
	WithoutIdentity  Identityless   `yaml:"without_identity" default:"refuse" doc:"Tables whose updates and deletes the log cannot tell (no primary key, or REPLICA IDENTITY NOTHING): refuse, or leave out with a warning where only a pattern selects them; skip; inserts: follow inserts and truncates alone; recopy: copy them again every recopy_every."`
	RecopyEvery      Duration       `yaml:"recopy_every" default:"1h" doc:"How old the copy of a table may become that without_identity: recopy keeps; each copy reads the whole table."`
	WithoutWAL       WithoutWAL     `yaml:"partitions_without_wal" default:"skip" doc:"Unlogged and foreign partitions of a table that is followed as one, whose changes the WAL does not tell: skip: leave their rows out; copy: take them with each copy of the table, and not follow them; refuse."`
	Generated        Generated      `yaml:"generated" default:"compute" doc:"Generated columns that the log does not have (stored ones before PostgreSQL 18, virtual ones always): compute: the server computes them, by their expressions, from the rows that the log tells; leave_out: they are left out of copy and log alike."`
	Slot             string         `yaml:"slot" doc:"Replication slot; empty is leat_<name>. It is made when it is missing and nothing has been copied yet."`
	Publication      string         `yaml:"publication" doc:"Publication; empty is leat_<name>."`
	OwnPublication   bool           `yaml:"own_publication" default:"true" doc:"Whether leat makes and alters the publication; false only checks it."`
	DDLEvents        DDLEvents      `yaml:"ddl_events" default:"auto" doc:"Event triggers that let the WAL tell of DDL on followed tables at its place (PostgreSQL 14 and newer): auto: made where the role may, used where they are there; on: refuse to start without; off: never made, and removed."`
	Failover         bool           `yaml:"failover" default:"false" doc:"Make the slot a failover slot (17 and newer)."`
	RowFilters       []TableSetting `yaml:"row_filters" env:"-" doc:"Rows to publish (15 and newer): public.orders = region = 'eu'."`
	Columns          []TableSetting `yaml:"columns" env:"-" doc:"Columns to publish (15 and newer): public.users = id, name."`
	CommitInterval   Interval       `yaml:"commit_interval" default:"10s" doc:"Longest time from a change to the commit in the lake that holds it. auto gives each table an interval of its own, from 10s for one that changes much to max_lag for one that changes little, at a fraction of the requests."`
	MaxLag           Duration       `yaml:"max_lag" default:"5m" doc:"With commit_interval: auto, the longest time from a change to the commit that holds it, of any table; the server keeps its log for so long."`
	CommitRows       int            `yaml:"commit_rows" default:"1000000" min:"1" max:"1000000000" doc:"Changes after which a commit is made early, at the next end of a transaction."`
	CommitBytes      Size           `yaml:"commit_bytes" default:"256MiB" doc:"Bytes of the log after which a commit is made early."`
	CopyParallel     int            `yaml:"copy_parallel" default:"0" min:"0" max:"64" doc:"Connections that copy tables; 0 is twice the processor's cores, at most 8."`
	CopyChunk        Size           `yaml:"copy_chunk" default:"256MiB" doc:"Heap bytes of a chunk at most: the unit of a copy that is not read again after a crash. Smaller where connections would have nothing to do at the end."`
	SpoolLimit       Size           `yaml:"spool_limit" default:"64GiB" doc:"Most bytes of the log that wait in the bucket while tables are copied; past it the server keeps its log."`
	WorkDir          string         `yaml:"work_dir" doc:"Local folder for key indexes and transactions in progress; it may be lost at any time. Empty is a folder below the user's cache."`
	Heartbeat        Duration       `yaml:"heartbeat" default:"30s" doc:"How often a message is written to the log of a quiet database, so that the slot moves on; 0s never."`
	GuardWarn        Size           `yaml:"guard_warn" default:"8GiB" doc:"Log that the server keeps for the slot, from which leat warns; 0 never."`
	GuardSpool       Size           `yaml:"guard_spool" default:"32GiB" doc:"From here the log is drained into the bucket without committing tables, so that the server can let it go; 0 never."`
	GuardDrop        Size           `yaml:"guard_drop" default:"0" doc:"From here the slot is dropped and an exact new copy is planned, before the server's disk is full; 0 never."`
	OnSchemaChange   SchemaChange   `yaml:"on_schema_change" default:"version" doc:"A column whose new type the lake cannot widen to: version fills the current rows from the old column where that is exact, else copies the table again, and keeps the old column of the history under another name; copy always copies the table again; stop ends with a hint."`
	Types            RunTypes       `yaml:"types" doc:"What happens to values that a typed column cannot carry exactly. A class that is given under dump.types alone counts for a run too."`
	Metrics          string         `yaml:"metrics" doc:"Address for /metrics, /healthz and /readyz, such as 127.0.0.1:9187; empty opens none."`
	MetricsToken     Secret         `yaml:"metrics_token" doc:"Bearer token that /metrics asks for; required off loopback."`
	LeaseTTL         Duration       `yaml:"lease_ttl" default:"30s" doc:"Time after which another process may take over from one that no longer answers."`
	MaintainInterval Duration       `yaml:"maintain_interval" default:"1m" doc:"How often tables are looked at for compaction and expiry; 0s leaves it to leat lake maintain."`
	MaintainAtEnd    MaintainAtEnd  `yaml:"maintain_at_end" default:"auto" doc:"Compaction and expiry at the end of a run --until-caught-up, of the tables that it has written to: auto: of those whose last one is an hour ago, or that eight runs have written to since; never; always."`
	MaxRetryDelay    Duration       `yaml:"max_retry_delay" default:"1m" doc:"Longest pause between two attempts after a failure that can heal."`
	LogicalMessages  bool           `yaml:"logical_messages" default:"false" doc:"Keep messages of pg_logical_emit_message in a table of their own (14 and newer)."`
}

// RunTypes holds a policy for each class of types that has values which a typed column cannot carry. aside makes the value null and
// keeps its exact text in the column _leat_special of the same row.
type RunTypes struct {
	Numeric          RunPolicy        `yaml:"numeric" default:"aside" doc:"As dump.types.numeric. aside: the value is null, and its exact text stands in _leat_special of the same row."`
	UnboundedNumeric UnboundedNumeric `yaml:"unbounded_numeric" default:"text" doc:"As dump.types.unbounded_numeric."`
	Date             RunPolicy        `yaml:"date" default:"aside" doc:"As dump.types.date."`
	Time             RunPolicy        `yaml:"time" default:"aside" doc:"As dump.types.time."`
	Timestamp        RunPolicy        `yaml:"timestamp" default:"aside" doc:"As dump.types.timestamp."`
	Timestamptz      RunPolicy        `yaml:"timestamptz" default:"aside" doc:"As dump.types.timestamptz."`
	UUID             UUIDForm         `yaml:"uuid" default:"uuid" doc:"As dump.types.uuid."`
	Array            RunArrayPolicy   `yaml:"array" default:"aside" doc:"As dump.types.array."`
	Text             RunTextPolicy    `yaml:"text" default:"aside" doc:"As dump.types.text. aside also keeps the text of values that cannot be read as their type."`
}

// RunTypes are the policies of a run: those of run.types, and of dump.types where a class is given there alone.
func (c *Config) RunTypes() RunTypes {
	t, d := c.Run.Types, c.Dump.Types
	for _, p := range []struct {
		class string
		take  func()
	}{
		{"numeric", func() { t.Numeric = RunPolicy(d.Numeric) }},
		{"unbounded_numeric", func() { t.UnboundedNumeric = d.UnboundedNumeric }},
		{"date", func() { t.Date = RunPolicy(d.Date) }},
		{"time", func() { t.Time = RunPolicy(d.Time) }},
		{"timestamp", func() { t.Timestamp = RunPolicy(d.Timestamp) }},
		{"timestamptz", func() { t.Timestamptz = RunPolicy(d.Timestamptz) }},
		{"uuid", func() { t.UUID = d.UUID }},
		{"array", func() { t.Array = RunArrayPolicy(d.Array) }},
		{"text", func() { t.Text = RunTextPolicy(d.Text) }},
	} {
		if c.isGiven("dump.types."+p.class) && !c.isGiven("run.types."+p.class) {
			p.take()
		}
	}
	return t
}

// Lake says how tables lie in the lake.
type Lake struct {
	Target          LakeTarget     `yaml:"target" default:"iceberg" doc:"iceberg, or files: change files with a manifest a commit."`
	FileFormat      Format         `yaml:"file_format" default:"parquet" doc:"Format of change files, with target files."`
	FormatVersion   int            `yaml:"format_version" default:"2" min:"2" max:"3" doc:"Version of the Iceberg format: 2, which every engine reads, or 3 with deletion vectors."`
	FileSize        Size           `yaml:"file_size" default:"128MiB" doc:"Size at which a new data file is begun, and to which small ones are compacted."`
	Compression     Compression    `yaml:"compression" default:"zstd" doc:"Compression inside data files."`
	Profile         Profile        `yaml:"profile" default:"leat" doc:"Names of the columns that history adds: leat, airbyte or debezium."`
	NamespacePrefix string         `yaml:"namespace_prefix" doc:"Stands before each schema's name to give the namespace."`
	HistorySuffix   string         `yaml:"history_suffix" default:"_history" doc:"Stands after a table's name to give its history table."`
	PartitionBy     []TableSetting `yaml:"partition_by" env:"-" doc:"Partitions of a table: public.orders = bucket(16, id)."`
	SortBy          []TableSetting `yaml:"sort_by" env:"-" doc:"Sort order of a table, by which the rows of each row group are sorted: public.orders = created_at desc, id."`
	ForeignWrites   ForeignWrites  `yaml:"foreign_writes" default:"warn" doc:"Rows that another program adds to a lake table or removes from it: allow and warn go on (warn says so), stop leaves the table as it is. A table that was rolled back is always copied again."`
	OrphanAge       Duration       `yaml:"orphan_age" default:"72h" doc:"Age from which files that no table knows are removed by leat lake maintain."`
	Snapshots       Snapshots      `yaml:"snapshots" doc:"Which snapshots stay for time travel."`
	Catalog         Catalog        `yaml:"catalog" doc:"Where tables are registered."`
}

// Snapshots says which snapshots of a table stay for time travel. One that any of these keeps stays.
type Snapshots struct {
	Keep     int      `yaml:"keep" default:"100" min:"1" max:"1000000" doc:"Number of newest snapshots that stay regardless of their age."`
	All      Duration `yaml:"all" default:"0s" doc:"Age up to which every snapshot stays."`
	Minutely Duration `yaml:"minutely" default:"1h" doc:"Age up to which the last snapshot of each minute stays."`
	Hourly   Duration `yaml:"hourly" default:"24h" doc:"Age up to which the last snapshot of each hour stays."`
	Daily    Duration `yaml:"daily" default:"720h" doc:"Age up to which the last snapshot of each day (UTC) stays."`
	Grace    Duration `yaml:"grace" default:"24h" doc:"How long the files of expired snapshots stay for readers that still read them."`
}

// Catalog says where the lake's tables are registered.
type Catalog struct {
	Type         CatalogType `yaml:"type" default:"file" doc:"file: in the lake itself, nothing else is needed; sqlite, postgres, rest, glue or hive."`
	URI          string      `yaml:"uri" doc:"Address: a file for sqlite, postgres://… for postgres, https://… for rest, thrift://… for hive."`
	Name         string      `yaml:"name" default:"leat" doc:"Name of the catalog, for sqlite, postgres and rest."`
	Warehouse    string      `yaml:"warehouse" doc:"Warehouse that a rest catalog is asked for."`
	Token        Secret      `yaml:"token" doc:"Bearer token for rest."`
	Credential   Secret      `yaml:"credential" doc:"client:secret for the OAuth2 login of rest, or the password of postgres."`
	OAuthURI     string      `yaml:"oauth_uri" doc:"Address of the OAuth2 login, where it is not the catalog's own."`
	Scope        string      `yaml:"scope" doc:"Scope of the OAuth2 login."`
	CAFile       string      `yaml:"ca_file" doc:"File with CA certificates that rest trusts besides the system's."`
	SigV4        bool        `yaml:"sigv4" default:"false" doc:"Sign requests to rest as AWS does."`
	Region       string      `yaml:"region" doc:"Region for glue and sigv4; empty takes the AWS configuration's."`
	HintInterval Duration    `yaml:"hint_interval" default:"30s" doc:"How often at most leat run writes a table's version-hint.text with catalog file, in a bucket; 0s with each commit. Readers that look for later versions see every commit at once; those that take the hint for the newest version see it so much later at most."`
}

// Keep says what is kept of a table.
type Keep string

// The values of Keep.
const (
	KeepAuto    Keep = "auto"
	KeepCurrent Keep = "current"
	KeepHistory Keep = "history"
	KeepBoth    Keep = "both"
)

func (Keep) allowed() []string { return names(KeepAuto, KeepCurrent, KeepHistory, KeepBoth) }

// Identityless says what happens to tables whose updates the log cannot tell.
type Identityless string

// The values of Identityless.
const (
	IdentitylessRefuse  Identityless = "refuse"
	IdentitylessSkip    Identityless = "skip"
	IdentitylessInserts Identityless = "inserts"
	IdentitylessRecopy  Identityless = "recopy"
)

func (Identityless) allowed() []string {
	return names(IdentitylessRefuse, IdentitylessSkip, IdentitylessInserts, IdentitylessRecopy)
}

// Generated says what becomes of generated columns that the log does not have.
type Generated string

// The values of Generated.
const (
	GeneratedCompute  Generated = "compute"
	GeneratedLeaveOut Generated = "leave_out"
)

func (Generated) allowed() []string { return names(GeneratedCompute, GeneratedLeaveOut) }

// ForeignWrites is the policy for what other programs write to a lake table.
type ForeignWrites string

// The values of ForeignWrites.
const (
	ForeignWritesAllow ForeignWrites = "allow"
	ForeignWritesWarn  ForeignWrites = "warn"
	ForeignWritesStop  ForeignWrites = "stop"
)

func (ForeignWrites) allowed() []string {
	return names(ForeignWritesAllow, ForeignWritesWarn, ForeignWritesStop)
}

// WithoutWAL says what happens to partitions whose changes the WAL does not tell.
type WithoutWAL string

// The values of WithoutWAL.
const (
	WithoutWALSkip   WithoutWAL = "skip"
	WithoutWALCopy   WithoutWAL = "copy"
	WithoutWALRefuse WithoutWAL = "refuse"
)

func (WithoutWAL) allowed() []string {
	return names(WithoutWALSkip, WithoutWALCopy, WithoutWALRefuse)
}

// DDLEvents says whether event triggers let the WAL tell of DDL.
type DDLEvents string

// The values of DDLEvents.
const (
	DDLEventsAuto DDLEvents = "auto"
	DDLEventsOn   DDLEvents = "on"
	DDLEventsOff  DDLEvents = "off"
)

func (DDLEvents) allowed() []string { return names(DDLEventsAuto, DDLEventsOn, DDLEventsOff) }

// MaintainAtEnd says whether a run that has caught up does upkeep before it ends.
type MaintainAtEnd string

// The values of MaintainAtEnd.
const (
	MaintainAtEndAuto   MaintainAtEnd = "auto"
	MaintainAtEndNever  MaintainAtEnd = "never"
	MaintainAtEndAlways MaintainAtEnd = "always"
)

func (MaintainAtEnd) allowed() []string {
	return names(MaintainAtEndAuto, MaintainAtEndNever, MaintainAtEndAlways)
}

// SchemaChange is the policy for a change of a table's definition that cannot be followed in place.
type SchemaChange string

// The values of SchemaChange.
const (
	SchemaChangeVersion SchemaChange = "version"
	SchemaChangeCopy    SchemaChange = "copy"
	SchemaChangeStop    SchemaChange = "stop"
)

func (SchemaChange) allowed() []string {
	return names(SchemaChangeVersion, SchemaChangeCopy, SchemaChangeStop)
}

// LakeTarget is the kind of lake.
type LakeTarget string

// The values of LakeTarget.
const (
	LakeIceberg LakeTarget = "iceberg"
	LakeFiles   LakeTarget = "files"
)

func (LakeTarget) allowed() []string { return names(LakeIceberg, LakeFiles) }

// Profile is a naming of history's columns.
type Profile string

// The values of Profile.
const (
	ProfileLeat     Profile = "leat"
	ProfileAirbyte  Profile = "airbyte"
	ProfileDebezium Profile = "debezium"
)

func (Profile) allowed() []string { return names(ProfileLeat, ProfileAirbyte, ProfileDebezium) }

// CatalogType is a kind of catalog.
type CatalogType string

// The values of CatalogType.
const (
	CatalogFile     CatalogType = "file"
	CatalogSQLite   CatalogType = "sqlite"
	CatalogPostgres CatalogType = "postgres"
	CatalogREST     CatalogType = "rest"
	CatalogGlue     CatalogType = "glue"
	CatalogHive     CatalogType = "hive"
)

func (CatalogType) allowed() []string {
	return names(CatalogFile, CatalogSQLite, CatalogPostgres, CatalogREST, CatalogGlue, CatalogHive)
}

// TableSetting is a text that belongs to the tables of a pattern: "public.orders = bucket(16, id)".
type TableSetting struct {
	Pattern Pattern
	Value   string
	text    string
}

// ParseTableSetting reads a pattern, '=' and a value.
func ParseTableSetting(s string) (TableSetting, error) {
	pattern, value, ok := cutSetting(s)
	if value = strings.TrimSpace(value); !ok || value == "" {
		return TableSetting{}, fmt.Errorf("%q has no '=' with a value after it; write public.orders = value", s)
	}
	p, err := ParsePattern(strings.TrimSpace(pattern))
	return TableSetting{Pattern: p, Value: value, text: s}, err
}

// cutSetting cuts at the first '=' outside quotes.
func cutSetting(s string) (before, after string, found bool) {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == '=' && !quoted:
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

func (t TableSetting) String() string { return t.text }

// MarshalText gives the setting as it was written.
func (t TableSetting) MarshalText() ([]byte, error) { return []byte(t.text), nil }

// UnmarshalText reads a setting.
func (t *TableSetting) UnmarshalText(b []byte) (err error) {
	*t, err = ParseTableSetting(string(b))
	return err
}

// SettingOf is the value of the last setting whose pattern matches the table, or "".
func SettingOf(settings []TableSetting, schema, table string) string {
	value := ""
	for _, s := range settings {
		if s.Pattern.Match(schema, table) {
			value = s.Value
		}
	}
	return value
}

// checkRun checks the form of the pipeline's name and what goes together.
func (c *Config) checkRun() error {
	for i, r := range c.Run.Name {
		fits := r >= 'a' && r <= 'z' || r == '_' || i > 0 && r >= '0' && r <= '9'
		if !fits || i >= 40 {
			return c.invalid("run.name", "the name may have small letters, digits and _, begin with a letter and have at most 40 of them")
		}
	}
	switch t := c.Lake.Catalog.Type; {
	case c.Run.Name == "":
		return c.invalid("run.name", "the name is empty")
	case c.Run.MaxLag <= 0:
		return c.invalid("run.max_lag", "the longest lag must be more than 0s")
	case c.Lake.Catalog.URI == "" && (t == CatalogSQLite || t == CatalogPostgres || t == CatalogREST || t == CatalogHive):
		return c.invalid("lake.catalog.type", "catalog %s needs lake.catalog.uri", t)
	case c.Lake.Target == LakeFiles && (c.Run.Keep == KeepCurrent || c.Run.Keep == KeepBoth):
		return c.invalid("run.keep", "change files hold the history, not the latest state")
	case c.Lake.Target == LakeFiles && len(c.Run.KeepCurrent) > 0:
		return c.invalid("run.keep_current", "change files hold the history, not the latest state")
	}
	return nil
}
