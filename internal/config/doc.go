// Package config holds the one schema of leat.yaml. The Go structs under [Config] are the
// truth: the file, the LEAT_ variables, the flags, docs/config.md and docs/leat.schema.json
// all derive from their fields and tags (see [Keys]).
//
// [Load] layers the settings: flag before LEAT_ variable before file before ambient variable
// (S3_OUTPUT, TABLES, S3_ENDPOINT, AWS_ENDPOINT_URL) before default. PG* and the rest of AWS_*
// stay with libpq's rules and the AWS SDK, which read them where the settings here are silent.
//
// Invariants: an unknown key is an error, never ignored; every error names the key, where it
// was given and what is allowed; a secret is given only by reference, lives in a [Secret], and
// shows in no error, format verb or encoding; any bytes as a file end in a result or an error,
// in time and memory bounded by the largest file allowed.
//
// The package opens no connection and does not check that a server or bucket exists.
package config
