package main

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/format"
	"github.com/leatdata/leat/internal/postgres"
)

// readersFlag refuses names of programs that docs/readers.md says nothing of.
func readersFlag(names []string) error {
	for _, name := range names {
		if !slices.Contains(format.Readers, name) {
			return fault.New(fault.UsageInvalid, "--readers", "%q is none of %s", name, strings.Join(format.Readers, ", "))
		}
	}
	return nil
}

// checkReaders warns of columns whose type a reader cannot read in the form that the job writes.
func checkReaders(ctx context.Context, cfg *config.Config, run bool, readers []string) ([]fault.Finding, error) {
	form, policies, choose := formOf(cfg, run), policies(cfg.Dump.Types), selection(&cfg.Dump, "dump.tables")
	if len(readers) == 0 || form == "" {
		return nil, nil
	}
	if run {
		opts := runOptions(cfg, "", nil, nil, nil)
		policies, choose = opts.Policies, opts.Selection
	}
	source, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	catalog := source.Catalog()
	tables, err := catalog.Tables(ctx, choose)
	if err != nil {
		return nil, err
	}
	found := unreadable{form: form, types: "dump.types."}
	if run {
		found.types = "run.types."
	}
	for _, reader := range readers {
		if why := format.CannotRead(reader, form, format.KindAnyTable); why != "" {
			found.add(reader, "See docs/readers.md.", "%s %s (%s)", reader, why, form)
		}
	}
	for _, t := range tables {
		plan, err := catalog.Plan(ctx, t, policies)
		if err != nil {
			return found.findings, err
		}
		found.columns(plan, readers)
	}
	if len(found.findings) == 0 {
		return []fault.Finding{{
			Code: "reader", Severity: fault.SeverityOK, Where: strings.Join(readers, ", "),
			What: "nothing is known that keeps them from reading the tables (" + string(form) + ")",
		}}, nil
	}
	return found.findings, nil
}

// unreadable collects what readers cannot read.
type unreadable struct {
	form     format.Form
	types    string // the settings of the job's types
	findings []fault.Finding
}

func (u *unreadable) columns(plan *postgres.Plan, readers []string) {
	for i, f := range plan.Schema.Fields() {
		kind, column := format.KindOf(f), plan.Table.Columns[i]
		for _, reader := range readers {
			if why := format.CannotRead(reader, u.form, kind); why != "" {
				hint := "Set " + u.types + kind + ": text, or leave the column out."
				u.add(plan.Table.String()+"."+column.Name, hint, "%s %s (%s, %s)", reader, why, column.Type, u.form)
			}
		}
	}
}

func (u *unreadable) add(where, hint, what string, args ...any) {
	u.findings = append(u.findings, fault.Finding{
		Code: "reader", Severity: fault.SeverityWarn, Where: where, What: fmt.Sprintf(what, args...), Mend: hint,
	})
}

// formOf is the form that the job writes, "" for one that all read alike.
func formOf(cfg *config.Config, run bool) format.Form {
	switch {
	case !run && string(cfg.Dump.Format) == string(format.Parquet):
		return format.FormParquet
	case run && cfg.Lake.Target != config.LakeFiles && cfg.Lake.FormatVersion == 3:
		return format.FormIcebergV3
	case run && cfg.Lake.Target != config.LakeFiles:
		return format.FormIcebergV2
	case run && cfg.Lake.FileFormat == config.FormatParquet:
		return format.FormParquet
	}
	return ""
}
