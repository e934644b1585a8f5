package config

import "slices"

// enum is a text with a closed set of values.
type enum interface{ allowed() []string }

// SSLMode is libpq's sslmode; empty where the connection's own settings decide.
type SSLMode string

func (SSLMode) allowed() []string {
	return []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
}

// Toggle is true, false, or left to the situation.
type Toggle string

// The values of Toggle.
const (
	ToggleAuto  Toggle = "auto"
	ToggleTrue  Toggle = "true"
	ToggleFalse Toggle = "false"
)

func (Toggle) allowed() []string { return names(ToggleAuto, ToggleTrue, ToggleFalse) }

// Encryption is what the server is asked to encrypt objects with.
type Encryption string

// The values of Encryption.
const (
	EncryptionNone Encryption = "none"
	EncryptionS3   Encryption = "AES256"
	EncryptionKMS  Encryption = "aws:kms"
)

func (Encryption) allowed() []string { return names(EncryptionNone, EncryptionS3, EncryptionKMS) }

// ACL is the list of grants that objects are written with.
type ACL string

// The values of ACL.
const (
	ACLNone      ACL = "none"
	ACLOwnerFull ACL = "bucket-owner-full-control"
)

func (ACL) allowed() []string { return names(ACLNone, ACLOwnerFull) }

// ObjectLock says what becomes of the retention and the legal hold of objects.
type ObjectLock string

// The values of ObjectLock.
const (
	ObjectLockOff    ObjectLock = "off"
	ObjectLockKeep   ObjectLock = "keep"
	ObjectLockFollow ObjectLock = "follow"
)

func (ObjectLock) allowed() []string { return names(ObjectLockOff, ObjectLockKeep, ObjectLockFollow) }

// ACLLook says whether lists of grants are looked at.
type ACLLook string

// The values of ACLLook.
const (
	ACLLookOff   ACLLook = "off"
	ACLLookCount ACLLook = "count"
)

func (ACLLook) allowed() []string { return names(ACLLookOff, ACLLookCount) }

// Checksums says whether S3's checksum headers are sent.
type Checksums string

// The values of Checksums.
const (
	ChecksumsAuto     Checksums = "auto"
	ChecksumsRequired Checksums = "required"
	ChecksumsOff      Checksums = "off"
)

func (Checksums) allowed() []string {
	return names(ChecksumsAuto, ChecksumsRequired, ChecksumsOff)
}

// Format is a file format. Its text is the file's extension.
type Format string

// The values of Format.
const (
	FormatParquet Format = "parquet"
	FormatCSV     Format = "csv"
	FormatCSVGz   Format = "csv.gz"
	FormatJSONL   Format = "jsonl"
	FormatJSONLGz Format = "jsonl.gz"
	FormatAvro    Format = "avro"
)

func (Format) allowed() []string {
	return names(FormatParquet, FormatCSV, FormatCSVGz, FormatJSONL, FormatJSONLGz, FormatAvro)
}

// Typed says whether values are carried in typed columns, which not every value fits.
func (f Format) Typed() bool { return f == FormatParquet || f == FormatAvro }

// Compression is a codec inside a file.
type Compression string

// The values of Compression.
const (
	CompressionZstd   Compression = "zstd"
	CompressionSnappy Compression = "snappy"
	CompressionGzip   Compression = "gzip"
	CompressionNone   Compression = "none"
)

func (Compression) allowed() []string {
	return names(CompressionZstd, CompressionSnappy, CompressionGzip, CompressionNone)
}

// Layout says how objects are named.
type Layout string

// The values of Layout.
const (
	LayoutRun  Layout = "run"
	LayoutDate Layout = "date"
)

func (Layout) allowed() []string { return names(LayoutRun, LayoutDate) }

// Partitions says how a partitioned table is dumped.
type Partitions string

// The values of Partitions.
const (
	PartitionsLeaf Partitions = "leaf"
	PartitionsRoot Partitions = "root"
)

func (Partitions) allowed() []string { return names(PartitionsLeaf, PartitionsRoot) }

// CSVForm says by whose settings values are written in csv.
type CSVForm string

// The values of CSVForm.
const (
	CSVExact CSVForm = "exact"
	CSVRole  CSVForm = "role"
)

func (CSVForm) allowed() []string { return names(CSVExact, CSVRole) }

// LSNMode says where the snapshot's log position comes from.
type LSNMode string

// The values of LSNMode.
const (
	LSNAuto        LSNMode = "auto"
	LSNExact       LSNMode = "exact"
	LSNApproximate LSNMode = "approximate"
)

func (LSNMode) allowed() []string { return names(LSNAuto, LSNExact, LSNApproximate) }

// Policy says what happens to a value that a typed column cannot carry exactly.
type Policy string

// The values of Policy. Each is carried out by the reader and recorded in the manifest.
const (
	PolicyFail  Policy = "fail"
	PolicyNull  Policy = "null"
	PolicyText  Policy = "text"
	PolicyClamp Policy = "clamp"
)

func (Policy) allowed() []string { return names(PolicyFail, PolicyNull, PolicyText, PolicyClamp) }

// ArrayPolicy is a Policy without clamp: a shape has no nearest one.
type ArrayPolicy string

func (ArrayPolicy) allowed() []string { return names(PolicyFail, PolicyNull, PolicyText) }

// RunPolicy is a Policy of a run, whose tables can keep the exact text beside a typed column.
type RunPolicy string

// PolicyAside makes the value null and keeps its exact text in _leat_special of the same row.
const PolicyAside RunPolicy = "aside"

func (RunPolicy) allowed() []string {
	return append(Policy("").allowed(), string(PolicyAside))
}

// RunArrayPolicy is a RunPolicy without clamp.
type RunArrayPolicy string

func (RunArrayPolicy) allowed() []string {
	return append(ArrayPolicy("").allowed(), string(PolicyAside))
}

// TextPolicy says what happens to text that is not UTF-8.
type TextPolicy string

func (TextPolicy) allowed() []string { return names(PolicyFail, PolicyNull) }

// RunTextPolicy is a TextPolicy of a run.
type RunTextPolicy string

func (RunTextPolicy) allowed() []string {
	return append(TextPolicy("").allowed(), string(PolicyAside))
}

// UUIDForm says how a uuid is carried: as one, or as its text, for readers that know no uuid.
type UUIDForm string

// The values of UUIDForm.
const (
	UUIDTyped UUIDForm = "uuid"
	UUIDText  UUIDForm = "text"
)

func (UUIDForm) allowed() []string { return names(UUIDTyped, UUIDText) }

// LogLevel is the least grave message that is shown.
type LogLevel string

// The values of LogLevel.
const (
	LogDebug LogLevel = "debug"
	LogInfo  LogLevel = "info"
	LogWarn  LogLevel = "warn"
	LogError LogLevel = "error"
)

func (LogLevel) allowed() []string { return names(LogDebug, LogInfo, LogWarn, LogError) }

// LogFormat says how messages are written.
type LogFormat string

// The values of LogFormat.
const (
	LogAuto LogFormat = "auto"
	LogText LogFormat = "text"
	LogJSON LogFormat = "json"
)

func (LogFormat) allowed() []string { return names(LogAuto, LogText, LogJSON) }

func names[T ~string](values ...T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return slices.Clip(out)
}

// Archived is what becomes of objects that lie in an archive.
type Archived string

// The values of Archived.
const (
	ArchivedFail    Archived = "fail"
	ArchivedSkip    Archived = "skip"
	ArchivedRestore Archived = "restore"
)

func (Archived) allowed() []string { return names(ArchivedFail, ArchivedSkip, ArchivedRestore) }

// RestoreTier is how fast an archive is asked to be.
type RestoreTier string

// The values of RestoreTier.
const (
	TierStandard  RestoreTier = "Standard"
	TierBulk      RestoreTier = "Bulk"
	TierExpedited RestoreTier = "Expedited"
)

func (RestoreTier) allowed() []string { return names(TierStandard, TierBulk, TierExpedited) }
