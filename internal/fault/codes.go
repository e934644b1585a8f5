package fault

// Code names a kind of fault. Codes are stable: scripts may match on them.
type Code string

// Exit is the status a process ends with. The classes, not the codes, decide it, so that a
// Job's podFailurePolicy can tell "try again" from "call somebody".
type Exit int

// The exit statuses of leat. 130 and 143 (SIGINT, SIGTERM) follow the shell's custom.
const (
	ExitOK          Exit = 0
	ExitFailed      Exit = 1   // a failure with no class of its own: a bug or the machine
	ExitUsage       Exit = 2   // flags, environment or leat.yaml are wrong
	ExitSource      Exit = 3   // PostgreSQL refused, is unreachable or lacks the thing asked for
	ExitTarget      Exit = 4   // the bucket or folder refused, is unreachable or is full
	ExitData        Exit = 5   // a value cannot be carried exactly and no policy says how
	ExitFindings    Exit = 6   // leat check or leat bucket found something that must be mended
	ExitInterrupted Exit = 130 // SIGINT; SIGTERM ends with 143
)

// The registered codes, by class.
const (
	Internal    Code = "internal"
	Interrupted Code = "interrupted"

	ConfigInvalid  Code = "config-invalid"
	ConfigUnknown  Code = "config-unknown-key"
	ConfigMissing  Code = "config-missing"
	SecretMissing  Code = "secret-missing"
	UsageInvalid   Code = "usage-invalid"
	URLInvalid     Code = "url-invalid"
	FormatUnusable Code = "format-unusable"

	SourceUnreachable Code = "source-unreachable"
	SourceAuth        Code = "source-auth"
	SourceRights      Code = "source-rights"
	SourceMissing     Code = "source-missing"
	SourceVersion     Code = "source-version"
	SourceCut         Code = "source-cut"
	SourceTimeout     Code = "source-timeout"
	SourceBusy        Code = "source-busy"
	SourceFailed      Code = "source-failed"
	SourceProtocol    Code = "source-protocol"
	SnapshotLost      Code = "snapshot-lost"

	BucketUnreachable Code = "bucket-unreachable"
	BucketAuth        Code = "bucket-auth"
	BucketRights      Code = "bucket-rights"
	BucketMissing     Code = "bucket-missing"
	BucketForeign     Code = "bucket-foreign"
	ObjectMissing     Code = "object-missing"
	ObjectExists      Code = "object-exists"
	BucketBusy        Code = "bucket-busy"
	BucketFull        Code = "bucket-full"
	BucketFailed      Code = "bucket-failed"
	BucketUnsupported Code = "bucket-unsupported"
	KeyRefused        Code = "key-refused"
	ChecksumMismatch  Code = "checksum-mismatch"
	ObjectArchived    Code = "object-archived"
	ObjectRestoring   Code = "object-restoring"
	ObjectOutside     Code = "object-outside"
	ObjectLink        Code = "object-link"
	ObjectSpecial     Code = "object-special"
	ObjectMarker      Code = "object-marker"
	ObjectForeign     Code = "object-foreign"
	ObjectOrphan      Code = "object-orphan"

	ValueUncarriable Code = "value-uncarriable"
	TypeUncarriable  Code = "type-uncarriable"
	NullUnexpected   Code = "null-unexpected"

	CheckFindings Code = "check-findings"
	RulesBroken   Code = "rules-broken"

	SlotMissing         Code = "slot-missing"
	SlotLost            Code = "slot-lost"
	SlotBusy            Code = "slot-busy"
	PublicationUnusable Code = "publication-unusable"
	KeyMissing          Code = "key-missing"
	SchemaUnfollowable  Code = "schema-unfollowable"

	LakeFailed      Code = "lake-failed"
	LakeUnreachable Code = "lake-unreachable"
	LakeConflict    Code = "lake-conflict"
	LakeMissing     Code = "lake-missing"
	LakeForeign     Code = "lake-foreign"
	LakeAltered     Code = "lake-altered"
	LakeUnreadable  Code = "lake-unreadable"
	PipelineBusy    Code = "pipeline-busy"
	PipelineFenced  Code = "pipeline-fenced"
	StateUnusable   Code = "state-unusable"
	SpoolFull       Code = "spool-full"

	MirrorRefused    Code = "mirror-refused"
	MirrorIncomplete Code = "mirror-incomplete"
)

// Entry is what a code means.
type Entry struct {
	Meaning string // one sentence for docs/errors.md
	Mend    string // what usually helps
	Exit    Exit
	Retry   bool // the same attempt can succeed later without anybody's help
}

// Codes is the registry; docs/errors.md is written from it.
var Codes = map[Code]Entry{
	Internal:    {"leat itself failed.", "Report it, with the log.", ExitFailed, false},
	Interrupted: {"A signal or a cancelled context ended the work.", "Start it again.", ExitInterrupted, false},

	ConfigInvalid:  {"A setting has a value that cannot be used.", "Correct the setting named in the message.", ExitUsage, false},
	ConfigUnknown:  {"leat.yaml has a key that leat does not know.", "Correct the key; the message names the nearest known one.", ExitUsage, false},
	ConfigMissing:  {"A required setting is missing.", "Give it by flag, environment or leat.yaml.", ExitUsage, false},
	SecretMissing:  {"A secret reference points to nothing.", "Set the environment variable or create the file the reference names.", ExitUsage, false},
	UsageInvalid:   {"The command line is wrong.", "See leat help.", ExitUsage, false},
	URLInvalid:     {"A --from or --to address cannot be understood.", "Use postgres://user@host/db, s3://bucket/path, gs://bucket/path, azblob://container/path or file:///path.", ExitUsage, false},
	FormatUnusable: {"The chosen format and options do not go together.", "Choose another format or drop the option.", ExitUsage, false},

	SourceUnreachable: {"PostgreSQL cannot be reached.", "Check host, port, network and that the server runs.", ExitSource, true},
	SourceAuth:        {"PostgreSQL refused the login.", "Check user, password (or .pgpass, PGPASSWORD, IAM token) and pg_hba.conf.", ExitSource, false},
	SourceRights:      {"The user lacks a right.", "Grant what the message names.", ExitSource, false},
	SourceMissing:     {"A table, schema or database does not exist.", "Check the name, its quotes and upper-case letters, and the database.", ExitSource, false},
	SourceVersion:     {"The server's version does not have what was asked for.", "Use PostgreSQL 12 or newer, or drop the option.", ExitSource, false},
	SourceCut:         {"The connection to PostgreSQL was cut.", "Start again; if it recurs, look for a proxy or firewall that ends idle connections.", ExitSource, true},
	SourceTimeout:     {"PostgreSQL took longer than a limit allows.", "Raise the limit named in the message, or end the session that blocks.", ExitSource, true},
	SourceBusy:        {"PostgreSQL lacks disk or memory for the moment, or ended the session's work to resolve a deadlock.", "It is tried again; if it recurs, make room on the server.", ExitSource, true},
	SourceFailed:      {"PostgreSQL answered with an error.", "Read the server's message.", ExitSource, false},
	SourceProtocol:    {"PostgreSQL sent bytes that cannot be understood.", "Report it, with the server's version and the table's definition.", ExitSource, false},
	SnapshotLost:      {"The snapshot that all tables are read in is gone.", "Start again; a dump is never stitched from two snapshots.", ExitSource, true},

	BucketUnreachable: {"The object store cannot be reached.", "Check the endpoint, the network and the CA certificate.", ExitTarget, true},
	BucketAuth:        {"The object store refused the credentials.", "Check the access key and secret, or the role; expired tokens must be renewed.", ExitTarget, false},
	BucketRights:      {"The credentials lack a right.", "Allow what the message names on this bucket and prefix.", ExitTarget, false},
	BucketMissing:     {"The bucket, container or folder does not exist.", "Create it, or correct the name.", ExitTarget, false},
	BucketForeign:     {"The bucket exists and belongs to somebody else.", "Choose another name: those of buckets are shared by all users of the server.", ExitTarget, false},
	ObjectMissing:     {"The object does not exist.", "Check the key.", ExitTarget, false},
	ObjectExists:      {"The object exists already and must not be replaced.", "Another process wrote it first; look at what it holds.", ExitTarget, false},
	BucketBusy:        {"The object store is overloaded or failed for a moment (429, 500, 503).", "It was retried; start again later or lower --parallel.", ExitTarget, true},
	BucketFull:        {"The disk or quota is full.", "Make room or raise the quota, then start again.", ExitTarget, false},
	BucketFailed:      {"The object store answered with an error.", "Read its message.", ExitTarget, false},
	BucketUnsupported: {"The object store cannot do what was asked.", "Drop the option or use another server.", ExitTarget, false},
	KeyRefused:        {"A server cannot keep or tell an object's key as it is: another object would be meant.", "Rename the object, or use a server that keeps keys as they are.", ExitTarget, false},
	ChecksumMismatch:  {"Bytes that arrived differ from bytes that were sent.", "Start again; if it recurs, suspect the network or the disk.", ExitTarget, true},

	ObjectArchived:  {"The object lies in an archive and must be restored before it can be read.", "Restore it, or let leat mirror do so: mirror.archived restore; with skip it is left out and counted.", ExitTarget, false},
	ObjectRestoring: {"The object was asked for from an archive and is not there yet.", "Run the mirror again in some hours: it carries what has been restored.", ExitTarget, false},
	ObjectOutside:   {"A symbolic link leads out of the folder that is read, and is not followed.", "Put the file itself into the folder, or leave the link out with --exclude.", ExitTarget, false},
	ObjectLink:      {"A symbolic link that leads nowhere, in a circle or to a folder is no object.", "Nothing, if it is meant: it holds no bytes of its own.", ExitTarget, false},
	ObjectSpecial:   {"A named pipe, a socket or a device in a folder is no object.", "Nothing, if it is meant: it holds no bytes.", ExitTarget, false},
	ObjectForeign:   {"The target has a folder that another mirror or pipeline keeps: nothing is deleted in it.", "Give each its own prefix, or exclude the folder; delete the folder by hand if it is of no use any more.", ExitTarget, false},
	ObjectOrphan:    {"A file in the data folder of an Iceberg table is named by none of the table's snapshots: it does not come with the table.", "Nothing, if it is meant: jobs that failed leave such files, and remove_orphan_files removes them. A file that is about to be committed comes with the next run.", ExitTarget, false},
	ObjectMarker:    {"An object without bytes whose key ends with a slash stands for a folder; this kind of target has no such objects.", "Nothing: the folder comes with the objects in it.", ExitTarget, false},

	ValueUncarriable: {"A value cannot be carried exactly in the chosen format and no policy says what to do.", "Choose a policy for the type: null, text or clamp (see docs/types.md).", ExitData, false},
	TypeUncarriable:  {"A type cannot be carried in the chosen format.", "Choose the policy text for it, exclude the column, or take another format.", ExitData, false},

	NullUnexpected: {"A NULL came in a column that the catalog declares NOT NULL.", "Run again: the table was altered meanwhile. If it stays, look for rows that break the constraint.", ExitData, false},

	MirrorRefused:    {"A mirror would delete more than it may, its source came back empty or lists less than it has, or its two places lie in one another.", "Follow the message: look at the source, or choose places beside each other.", ExitTarget, false},
	MirrorIncomplete: {"A mirror carried what it could and set objects aside.", "Mend the reason that the report gives for each, and run it again: only they are left.", ExitFindings, true},

	CheckFindings: {"leat check found something that must be mended.", "Follow the mend of each finding.", ExitFindings, false},
	RulesBroken:   {"leat bucket found a rule that the bucket or its keys do not keep.", "Follow the mend of each finding; leat bucket audit --fix mends what the keys may.", ExitFindings, false},

	SlotMissing:         {"The replication slot that the pipeline continues from does not exist.", "If it was dropped, plan an exact new copy: leat resync --all.", ExitSource, false},
	SlotLost:            {"The server has invalidated the replication slot or removed the log it needs.", "Plan an exact new copy: leat resync --all; then raise max_slot_wal_keep_size or watch the lag.", ExitSource, false},
	SlotBusy:            {"The replication slot cannot be read for the moment, most often because another process reads from it.", "End the other process; the message names its session.", ExitSource, true},
	PublicationUnusable: {"The publication does not give what the pipeline needs.", "Run the SQL of the message as the owner of the tables.", ExitSource, false},
	KeyMissing:          {"The latest state of a table needs a key, and the log does not tell one.", "Add a primary key, set REPLICA IDENTITY FULL, or keep only the history.", ExitSource, false},
	SchemaUnfollowable:  {"The definition of a table changed in a way that cannot be followed in place.", "Choose a policy (run.on_schema_change), or copy the table anew: leat resync --table NAME.", ExitData, false},

	LakeFailed:      {"The lake's catalog or a table in it cannot be read or written.", "Read the message; check the catalog's address and rights.", ExitTarget, false},
	LakeUnreachable: {"The lake's catalog cannot be reached, or did not say what became of a commit.", "It is tried again from what the lake holds; if it recurs, check the catalog's address and that its server runs.", ExitTarget, true},
	LakeConflict:    {"Somebody else changed the table in the lake at the same moment.", "It is tried again from what the lake holds; if it recurs, look for a second writer.", ExitTarget, true},
	LakeMissing:     {"A table or a file of the lake that must be there is gone.", "Restore it, or copy the table anew: leat resync --table NAME.", ExitTarget, false},
	LakeForeign:     {"A table of that name exists in the lake, and this pipeline did not make it.", "Choose another namespace, or drop the table.", ExitTarget, false},
	LakeAltered:     {"Another program has changed the definition of a table in the lake.", "Undo the change, or copy the table again: leat resync --table NAME.", ExitTarget, false},
	LakeUnreadable:  {"A file of a table in the lake is damaged, or was made to do harm: it is not read.", "Restore the file; or drop the table from the lake and copy it again: leat resync --table NAME.", ExitTarget, false},
	PipelineBusy:    {"Another process runs this pipeline.", "End it, or wait until its lease runs out; the message names its host.", ExitTarget, true},
	PipelineFenced:  {"Another process has taken this pipeline over.", "Nothing is lost: what this process had not committed, the other one reads again.", ExitTarget, false},
	StateUnusable:   {"The pipeline's saved state cannot be understood.", "It was written by a newer leat or by hand: use that version, or plan a new copy.", ExitTarget, false},
	SpoolFull:       {"The spool has reached its limit.", "Raise run.spool_limit, or let the copy finish; the server keeps its log meanwhile.", ExitTarget, true},
}

// ExitOf returns the status a process ends with for err.
func ExitOf(err error) Exit {
	if err == nil {
		return ExitOK
	}
	if f := Of(err); f != nil {
		if e, ok := Codes[f.Code]; ok {
			return e.Exit
		}
	}
	return ExitFailed
}
