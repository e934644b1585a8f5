package lake

import "testing"

func TestAPlaceIsTheSameInEverySpelling(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ location, name, want string }{
		{"file:///x/lake", "file:///x/lake/a/b", "file:///x/lake/a/b"},
		{"file:///x/lake", "file:/x/lake/a/b", "file:///x/lake/a/b"},
		{"file:///x/lake", "/x/lake/a/b", "file:///x/lake/a/b"},
		{"file:///x/lake", "file://localhost/x/lake/a/b", "file:///x/lake/a/b"},
		{"file:///x/la ke", "file:///x/la%20ke/a%20b", "file:///x/la ke/a b"},
		{"file:///x/la ke", "file:/x/la ke/a%20b", "file:///x/la ke/a%20b"}, // a root that is not escaped: the rest is not either
		{"file:///x/lake", "file:///x/lake2/a", "file:///x/lake2/a"},
		{"file:///x/lake", "s3://x/lake/a", "s3://x/lake/a"},
		{"s3://b/p", "s3a://b/p/a", "s3://b/p/a"},
		{"s3a://b/p", "s3n://b/p/a", "s3a://b/p/a"},
		{"s3://b/p", "s3://b2/p/a", "s3://b2/p/a"},
		{"abfss://c@acc.dfs.core.windows.net/p", "wasb://c@acc.blob.core.windows.net/p/a", "abfss://c@acc.dfs.core.windows.net/p/a"},
		{"gs://b/p", "gs://b/p/a", "gs://b/p/a"},
	} {
		l := &Lake{Options: Options{Location: c.location}, places: newPlaces(c.location, c.location)}
		if got := l.canonical(c.name); got != c.want {
			t.Errorf("%s in %s is %s, not %s", c.name, c.location, got, c.want)
		}
	}
}
