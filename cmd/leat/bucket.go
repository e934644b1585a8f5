package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/config"
	"github.com/leatdata/leat/internal/fault"
	"github.com/leatdata/leat/internal/warden"
)

func (c *cli) bucketCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bucket",
		Short: "Make a bucket that keeps the rules, prove that one does, print what keys need",
		Example: `  leat bucket create s3://egress --expire-days 14
  leat bucket audit s3://egress
  leat bucket policy s3://egress --for dump`,
	}
	cmd.AddCommand(c.bucketCreateCommand(), c.bucketAuditCommand(), c.bucketPolicyCommand())
	return cmd
}

// bucketFlags are those of every verb that looks after a bucket.
func bucketFlags(cmd *cobra.Command) {
	cmd.Args = cobra.MaximumNArgs(1)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	f := cmd.Flags()
	f.String("endpoint", "", "S3 server other than AWS, such as https://ceph.example.com")
	f.String("region", "", "region of the bucket")
}

// rulesFlags are the rules that a bucket must keep.
func rulesFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.Int("expire-days", 14, "days after which every object below the path is removed; 0 keeps them")
	f.String("encryption", "AES256", "AES256, aws:kms or none: what objects get that ask for nothing")
	f.String("kms-key-id", "", "key for aws:kms; the account's default key if empty")
	complete(cmd, "encryption", "AES256", "aws:kms", "none")
}

// consentFlag names what may be changed although the bucket holds what is not leat's.
func consentFlag(cmd *cobra.Command) {
	cmd.Flags().StringSlice("allow", nil, "rules to set although the bucket holds objects or rules that are not leat's: "+strings.Join(warden.Consents, ", "))
	complete(cmd, "allow", warden.Consents...)
}

func consentOf(cmd *cobra.Command) (warden.Consent, error) {
	names, _ := cmd.Flags().GetStringSlice("allow")
	for _, name := range names {
		if !slices.Contains(warden.Consents, name) {
			return nil, fault.New(fault.UsageInvalid, "--allow", "there is no rule %q", name).WithMend("The rules are %s.", strings.Join(warden.Consents, ", "))
		}
	}
	return names, nil
}

func rulesOf(cmd *cobra.Command) (warden.Rules, error) {
	f := cmd.Flags()
	expire, _ := f.GetInt("expire-days")
	algorithm, _ := f.GetString("encryption")
	key, _ := f.GetString("kms-key-id")
	r := warden.Rules{Encryption: bucket.Encryption{Algorithm: algorithm, KeyID: key}, ExpireDays: expire, AbortDays: 1}
	switch {
	case expire < 0 || expire > 36500:
		return r, fault.New(fault.UsageInvalid, "--expire-days", "%d is not between 0 and 36500", expire)
	case !slices.Contains([]string{"AES256", "aws:kms", "none"}, algorithm):
		return r, fault.New(fault.UsageInvalid, "--encryption", "%q is none of AES256, aws:kms, none", algorithm)
	case key != "" && algorithm != "aws:kms":
		return r, fault.New(fault.UsageInvalid, "--kms-key-id", "a key is named, but the encryption is not aws:kms").WithMend("Add --encryption aws:kms.")
	}
	if algorithm == "none" {
		r.Encryption = bucket.Encryption{}
	}
	return r, nil
}

// bucketConfig reads the settings of the bucket that the arguments, or else to.url, name.
func (c *cli) bucketConfig(cmd *cobra.Command, args []string) (*config.Config, error) {
	c.flags = []flagKey{{"endpoint", "to.endpoint"}, {"region", "to.region"}}
	if len(args) > 0 {
		c.sets = append(c.sets, "to.url="+args[0])
	}
	cfg, err := c.load(cmd)
	if err != nil {
		return nil, err
	}
	if cfg.To.URL == "" {
		return nil, fault.New(fault.UsageInvalid, cmd.CommandPath(), "no bucket is named").WithMend("Name it: %s s3://bucket/path.", cmd.CommandPath())
	}
	kind, _, _, err := bucket.Split(cfg.To.URL)
	if err == nil && kind != bucket.KindS3 {
		err = fault.New(fault.BucketUnsupported, cfg.To.URL, "only buckets of S3 servers have rules that leat knows").WithMend("Name a bucket as s3://bucket/path.")
	}
	return cfg, err
}

// openKeeper opens the bucket for looking after it.
func openKeeper(ctx context.Context, cfg *config.Config) (bucket.Keeper, error) {
	b, err := openBucket(ctx, cfg)
	if err != nil {
		return nil, err
	}
	k, ok := bucket.KeeperOf(b)
	if !ok {
		b.Close()
		return nil, fault.New(fault.BucketUnsupported, cfg.To.URL, "only buckets of S3 servers have rules that leat knows")
	}
	return k, nil
}

// keeper opens the bucket that the arguments, or else to.url, name.
func (c *cli) keeper(cmd *cobra.Command, args []string) (bucket.Keeper, error) {
	cfg, err := c.bucketConfig(cmd, args)
	if err != nil {
		return nil, err
	}
	return openKeeper(cmd.Context(), cfg)
}

func (c *cli) bucketCreateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create [URL]",
		Short: "Make a bucket for carrying data out, or bring one to the rules",
		Long: `Create makes a bucket for this purpose only: objects are encrypted, go after some days,
unfinished uploads go after one, and nobody can make anything public. A bucket that is
there already and ours is brought to these rules; one of somebody else is refused. Where
a bucket holds objects or rules that are not leat's, nothing is set that --allow does not
name: create then says what would be removed first. Then it proves the rules, as audit does. What the server lacks is said, never taken for done.

Exit status: 0 every rule is kept, 6 one is not, others as for dump.`,
		Example: `  leat bucket create s3://egress --expire-days 14
  leat bucket create s3://egress/app --encryption aws:kms --kms-key-id alias/egress --versioning
  leat bucket create s3://dh-secure --endpoint https://ceph.example.com --encryption none --json`,
	}
	bucketFlags(cmd)
	rulesFlags(cmd)
	consentFlag(cmd)
	versioning := cmd.Flags().Bool("versioning", false, "keep replaced and deleted objects for a day")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		rules, err := rulesOf(cmd)
		if err != nil {
			return err
		}
		rules.Versioning = *versioning
		consent, err := consentOf(cmd)
		if err != nil {
			return err
		}
		return c.bucketCreate(cmd, args, rules, consent)
	}
	return cmd
}

func (c *cli) bucketCreate(cmd *cobra.Command, args []string, rules warden.Rules, consent warden.Consent) error {
	k, err := c.keeper(cmd, args)
	if err != nil {
		return err
	}
	defer k.Close()
	done, err := warden.Create(cmd.Context(), k, rules, consent, time.Now)
	show := &rulesReport{cli: c}
	if c.json && len(done.Steps) > 0 {
		if err := sayJSON(c.stdout, done); err != nil {
			return err
		}
		show.mute = true
	}
	show.steps(done.Steps)
	show.findings(done.Findings)
	if err != nil {
		return err
	}
	return show.end()
}

func (c *cli) bucketAuditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit [URL]",
		Short: "Prove by trying that a bucket and these keys keep the rules",
		Long: `Audit does not believe the settings: it writes a scratch object and looks how it is kept
and when it will go, asks for it without keys, and tries these keys on other buckets and on
the bucket's rules, which it writes once more as they are. Each finding has a code, a
severity and a mend; docs/bucket.md has them all.

Run it with the keys of each job, and with the owner's (--for owner), which may do
everything and are not judged. --fix mends what these keys may, and proves again.

Exit status: 0 no finding above info, 6 there is one, others as for dump.`,
		Example: `  leat bucket audit s3://egress --for owner --fix
  leat bucket audit s3://egress/app --for dump --other payroll
  leat bucket audit s3://dh-secure --endpoint https://ceph.example.com --accept encryption-missing --json`,
	}
	bucketFlags(cmd)
	rulesFlags(cmd)
	consentFlag(cmd)
	f := cmd.Flags()
	job := f.String("for", "", "whose keys these are: owner, "+strings.Join(jobs(), ", "))
	others := f.StringArray("other", nil, "bucket that these keys must not reach; may be repeated")
	accepted := f.StringSlice("accept", nil, "codes of findings that do not count, because the server lacks what they ask for")
	fix := f.Bool("fix", false, "mend what can be mended with these keys, then prove again")
	complete(cmd, "for", append(jobs(), string(warden.Owner))...)
	complete(cmd, "accept", warden.Codes...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		rules, err := rulesOf(cmd)
		if err != nil {
			return err
		}
		if *job != "" && !slices.Contains(append(jobs(), string(warden.Owner)), *job) {
			return fault.New(fault.UsageInvalid, "--for", "%q is none of owner, %s", *job, strings.Join(jobs(), ", "))
		}
		for _, code := range *accepted {
			if !slices.Contains(warden.Codes, code) {
				return fault.New(fault.UsageInvalid, "--accept", "no finding has the code %q", code).WithMend("The codes are %s.", strings.Join(warden.Codes, ", "))
			}
		}
		consent, err := consentOf(cmd)
		if err != nil {
			return err
		}
		show := &rulesReport{cli: c, accepted: *accepted}
		return c.bucketAudit(cmd, args, warden.Options{Rules: rules, For: warden.Job(*job), Others: *others, Now: time.Now}, *fix, consent, show)
	}
	return cmd
}

func jobs() []string {
	var names []string
	for _, j := range warden.Jobs {
		names = append(names, string(j))
	}
	return names
}

func (c *cli) bucketAudit(cmd *cobra.Command, args []string, opts warden.Options, fix bool, consent warden.Consent, show *rulesReport) error {
	k, err := c.keeper(cmd, args)
	if err != nil {
		return err
	}
	defer k.Close()
	ctx := cmd.Context()
	found, err := warden.Audit(ctx, k, opts)
	if err == nil && fix {
		show.steps(warden.Fix(ctx, k, opts, consent, found))
		found, err = warden.Audit(ctx, k, opts)
	}
	show.findings(found)
	if err != nil {
		return err
	}
	return show.end()
}

func (c *cli) bucketPolicyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy [URL]",
		Short: "Print the least policy for a job, or make it part of the bucket's",
		Long: `Policy prints what the keys of a job need, and no more: dump and run write, read, list and
delete below the path, sync lists and reads (the source of a mirror), target is the other
side of it. With mirror.object_lock, mirror.acl and mirror.to.acl in the settings it has what
these need. Without --principal it is for attaching to a user or role of AWS; with one it
is for the bucket, and --apply sets it there, beside what the bucket's policy says already.`,
		Example: `  leat bucket policy s3://egress/app --for dump --server aws
  leat bucket policy s3://egress/app --for sync --principal arn:aws:iam::123456789012:role/sync --apply
  leat bucket policy s3://dh-secure/app --for target --endpoint https://ceph.example.com --principal sync --apply`,
	}
	bucketFlags(cmd)
	f := cmd.Flags()
	job := f.String("for", "", strings.Join(jobs(), ", "))
	server := f.String("server", "", "aws or ceph; found out by asking if empty")
	principal := f.String("principal", "", "whom it is for: an ARN, an AWS account, a Ceph user")
	key := f.String("kms-key-id", "", "ARN of the key that objects are encrypted with, for a policy to be attached")
	apply := f.Bool("apply", false, "set it as a part of the bucket's policy")
	complete(cmd, "for", jobs()...)
	complete(cmd, "server", string(bucket.ServerAWS), string(bucket.ServerCeph))
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *job == "" {
			return fault.New(fault.UsageInvalid, "--for", "no job is named").WithMend("Choose one of %s.", strings.Join(jobs(), ", "))
		}
		if !slices.Contains([]string{"", string(bucket.ServerAWS), string(bucket.ServerCeph)}, *server) {
			return fault.New(fault.UsageInvalid, "--server", "%q is neither aws nor ceph", *server)
		}
		return c.bucketPolicy(cmd, args, warden.DraftOptions{Job: warden.Job(*job), Server: bucket.Server(*server), Principal: *principal, KMSKeyID: *key}, *apply)
	}
	return cmd
}

func (c *cli) bucketPolicy(cmd *cobra.Command, args []string, o warden.DraftOptions, apply bool) error {
	cfg, err := c.bucketConfig(cmd, args)
	if err != nil {
		return err
	}
	if _, o.Name, o.Root, err = bucket.Split(cfg.To.URL); err != nil {
		return err
	}
	o.Grants = cfg.To.ACL != config.ACLNone || o.Job == warden.Target && cfg.Mirror.To.ACL != config.ACLNone
	o.Locks, o.ACLLook = cfg.Mirror.ObjectLock != config.ObjectLockOff, cfg.Mirror.ACL == config.ACLLookCount
	ctx := cmd.Context()
	var k bucket.Keeper
	if apply || o.Server == "" { // else nobody needs to be asked
		if k, err = openKeeper(ctx, cfg); err != nil {
			return err
		}
		defer k.Close()
		if o.Server, err = serverOf(ctx, k, o.Server); err != nil {
			return err
		}
	}
	if apply {
		steps, err := warden.Apply(ctx, k, o)
		(&rulesReport{cli: c}).steps(steps)
		return err
	}
	draft, err := warden.Draft(o)
	if err != nil {
		return err
	}
	return sayJSONIndented(c.stdout, draft)
}

func serverOf(ctx context.Context, k bucket.Keeper, said bucket.Server) (bucket.Server, error) {
	if said != "" {
		return said, nil
	}
	server, err := k.Server(ctx)
	if err == nil && server == bucket.ServerOther {
		err = fault.New(fault.UsageInvalid, "--server", "the server is neither AWS nor Ceph, and how it names users is not known").
			WithMend("Say whose policies it understands: --server aws or --server ceph.")
	}
	return server, err
}

// rulesReport shows what was done to a bucket and what was found, and counts what must be mended.
type rulesReport struct {
	cli      *cli
	accepted []string
	mute     bool // counts, shows nothing
	broken   map[fault.Severity]int
}

func (r *rulesReport) steps(steps []warden.Step) {
	for _, s := range steps {
		switch {
		case r.mute, r.cli.quiet && s.Did == warden.Kept:
		case r.cli.json:
			_ = sayJSON(r.cli.stdout, s) // strings always marshal
		default:
			say(r.cli.stdout, "%-10s  %s: %s\n", s.Did, s.Rule, s.What)
			if s.Mend != "" {
				sayMend(r.cli.stdout, 12, s.Mend)
			}
		}
	}
}

func (r *rulesReport) findings(found []fault.Finding) {
	r.broken = map[fault.Severity]int{}
	for _, f := range found {
		passed := f.Severity == fault.SeverityOK || f.Severity == fault.SeverityInfo
		if !passed && slices.Contains(r.accepted, f.Code) {
			passed, f.What, f.Mend = true, f.What+" (accepted)", ""
		}
		if !passed {
			r.broken[f.Severity]++
		}
		switch {
		case r.mute, r.cli.quiet && passed:
		case r.cli.json:
			_ = sayJSON(r.cli.stdout, f) // strings always marshal
		default:
			say(r.cli.stdout, "%-10s  %s  (%s)\n", f.Severity, f.What, f.Code)
			if f.Mend != "" {
				sayMend(r.cli.stdout, 12, f.Mend)
			}
		}
	}
}

// end is the error of what counts, or none.
func (r *rulesReport) end() error {
	var found []string
	for _, s := range []fault.Severity{fault.SeverityCritical, fault.SeverityHigh, fault.SeverityMedium, fault.SeverityLow} {
		if n := r.broken[s]; n > 0 {
			found = append(found, fmt.Sprintf("%d %s", n, s))
		}
	}
	if len(found) > 0 {
		return fault.New(fault.RulesBroken, "", "rules are not kept: %s", strings.Join(found, ", "))
	}
	if !r.cli.json && !r.cli.quiet {
		say(r.cli.stdout, "Every rule that was tried is kept.\n")
	}
	return nil
}
