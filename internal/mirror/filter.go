package mirror

import (
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/leatdata/leat/internal/bucket"
	"github.com/leatdata/leat/internal/fault"
)

// Filter says which objects take part. What it leaves out is neither carried nor deleted. The zero value lets all pass.
type Filter struct {
	Include, Exclude []Glob
	// NewerThan and OlderThan bound when an object was written; the zero time does not.
	NewerThan, OlderThan time.Time
	// FirstDate and LastDate bound the date folder (YYYY-MM-DD…) in a key; objects without one do not pass. Empty does not bound.
	FirstDate, LastDate string
}

// Glob matches keys below the root: * and ? stop at a slash, ** does not. One without a slash matches the last part of a key.
type Glob struct {
	text  string
	match *regexp.Regexp
}

// ParseGlob reads a glob.
func ParseGlob(text string) (Glob, error) {
	if text == "" {
		return Glob{}, fault.New(fault.ConfigInvalid, "glob", "it is empty")
	}
	var re strings.Builder
	re.WriteString(`\A`)
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case strings.HasPrefix(text[i:], "**"):
			re.WriteString(`(?s:.*)`)
			i++
		case c == '*':
			re.WriteString(`[^/]*`)
		case c == '?':
			re.WriteString(`[^/]`)
		default:
			re.WriteString(regexp.QuoteMeta(text[i : i+1]))
		}
	}
	match, err := regexp.Compile(re.String() + `\z`)
	if err != nil {
		return Glob{}, fault.New(fault.ConfigInvalid, "glob "+text, "it cannot be understood").Because(err)
	}
	return Glob{text, match}, nil
}

// Match says whether the glob matches a key.
func (g Glob) Match(key string) bool {
	if !strings.Contains(g.text, "/") {
		key = path.Base(key)
	}
	return g.match.MatchString(key)
}

var dateFolder = regexp.MustCompile(`(?:\A|/)(\d{4}-\d{2}-\d{2})[^/]*/`)

// names says whether a key passes by its name.
func (f *Filter) names(key string) bool {
	matches := func(g Glob) bool { return g.Match(key) }
	return (len(f.Include) == 0 || slices.ContainsFunc(f.Include, matches)) && !slices.ContainsFunc(f.Exclude, matches)
}

// keepsOut says whether nothing below a folder passes, under any name. The folder ends with a slash.
func (f *Filter) keepsOut(folder string) bool {
	all := func(g Glob) bool {
		return strings.Contains(g.text, "/") && strings.HasSuffix(g.text, "**") && g.match.MatchString(folder)
	}
	elsewhere := func(g Glob) bool {
		begin := g.text[:strings.IndexAny(g.text+"*", "*?")]
		return strings.Contains(g.text, "/") && !strings.HasPrefix(folder, begin) && !strings.HasPrefix(begin, folder)
	}
	return slices.ContainsFunc(f.Exclude, all) || len(f.Include) > 0 && !slices.ContainsFunc(f.Include, func(g Glob) bool { return !elsewhere(g) })
}

func (f *Filter) passes(o bucket.Object) bool {
	switch {
	case !f.names(o.Key), !f.NewerThan.IsZero() && o.Modified.Before(f.NewerThan),
		!f.OlderThan.IsZero() && !o.Modified.Before(f.OlderThan):
		return false
	case f.FirstDate == "" && f.LastDate == "":
		return true
	}
	date := dateFolder.FindStringSubmatch(o.Key)
	return date != nil && (f.FirstDate == "" || date[1] >= f.FirstDate) && (f.LastDate == "" || date[1] <= f.LastDate)
}
