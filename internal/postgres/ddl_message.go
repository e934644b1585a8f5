package postgres

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
)

// DDL is what a message of an event trigger tells of one command. Anybody who may write messages can write one, so it is no more than a
// reason to look.
type DDL struct {
	By           string // the slot of the pipeline that ran the command itself
	Tables       []DDLTable
	Publications []DDLPublication
}

// DDLTable is a table, or a partition of one, after the command.
type DDLTable struct {
	OID      uint32
	Above    []uint32 // what it is a partition of, at any level
	Identity byte     // relreplident
	Key      uint32   // the constraint of the primary key, 0 for none
	// Weak are partitions at or below it of which the WAL tells less than of their root, a hundred at most.
	Weak    []uint32
	Rewrite DDLRewrite // why its rows are about to be written again; 0 where they are not
	Columns []DDLColumn
}

// DDLRewrite is why an ALTER TABLE writes the rows again, as pg_event_trigger_table_rewrite_reason() says it.
type DDLRewrite int

// The reasons that matter.
const (
	RewritePersistence DDLRewrite = 1
	RewriteDefault     DDLRewrite = 2
	RewriteType        DDLRewrite = 4
)

// DDLColumn is a column that the rewriting transaction has changed, as it is now.
type DDLColumn struct {
	Attnum    int16
	Type      uint32
	Typmod    int32
	Generated bool // stored
}

// DDLPublication is one of the pipeline's publications that was made, altered or dropped: what it gives of one table, or all of it.
type DDLPublication struct {
	Name  string
	Table uint32 // 0 for all
}

// mostDDL bounds what is taken for a message: the function writes no more.
const mostDDL = 8 << 10

var errDDL = errors.New("it is no message of a DDL event")

// ParseDDL reads a message. One that says that there is too much to tell has nothing in it.
func ParseDDL(content []byte) (DDL, error) {
	if len(content) > mostDDL {
		return DDL{}, errDDL
	}
	var m struct {
		Version int    `json:"version"`
		Many    bool   `json:"many"`
		By      string `json:"by"`
		Tables  []struct {
			OID      uint32    `json:"oid"`
			Above    []uint32  `json:"above"`
			Identity string    `json:"identity"`
			Key      uint32    `json:"key"`
			Weak     []uint32  `json:"weak"`
			Reason   int       `json:"reason"`
			Columns  []column4 `json:"columns"`
		} `json:"tables"`
		Publications []struct {
			Name  string `json:"name"`
			Table uint32 `json:"table"`
		} `json:"publications"`
	}
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if d.Decode(&m) != nil || m.Version != ddlVersion {
		return DDL{}, errDDL
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return DDL{}, errDDL
	}
	out := DDL{By: m.By}
	for _, t := range m.Tables {
		if len(t.Identity) != 1 {
			return DDL{}, errDDL
		}
		one := DDLTable{OID: t.OID, Above: t.Above, Identity: t.Identity[0], Key: t.Key, Weak: t.Weak, Rewrite: DDLRewrite(t.Reason)}
		for _, c := range t.Columns {
			one.Columns = append(one.Columns, DDLColumn(c))
		}
		out.Tables = append(out.Tables, one)
	}
	for _, p := range m.Publications {
		out.Publications = append(out.Publications, DDLPublication(p))
	}
	return out, nil
}

// column4 is a column as the message has it: an array of four.
type column4 DDLColumn

func (c *column4) UnmarshalJSON(data []byte) error {
	var parts []json.RawMessage
	if err := json.Unmarshal(data, &parts); err != nil || len(parts) != 4 {
		return errDDL
	}
	for i, into := range []any{&c.Attnum, &c.Type, &c.Typmod, &c.Generated} {
		if err := json.Unmarshal(parts[i], into); err != nil {
			return err
		}
	}
	return nil
}
