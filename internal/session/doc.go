// Package session is the written list of the settings under which leat speaks to PostgreSQL.
//
// A server's administrator can change what a session of a role or a database begins with
// (ALTER ROLE … SET, ALTER DATABASE … SET): how dates and numbers are written, which warnings are sent, what is found
// under a name, how long a statement may take. What leat writes, and what its guards rely on, must not depend on that. So
// every session that leat opens runs [SQL] before anything else, and docs/sessions.md, made from [List], says what is set
// and why, and [Left] what is left alone.
//
// It is SQL, not start-up parameters: connection poolers refuse those that they do not know.
//
// It opens no connection: internal/postgres and internal/lake do.
package session
