package postgres

import (
	"context"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"
)

// The signature is made on this machine, from whatever credentials AWS's chain finds: here the environment.
func TestAnIAMTokenIsSignedForThisServerAndUser(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "not-a-real-key")
	t.Setenv("AWS_REGION", "eu-west-1")
	cfg := &pgconn.Config{Host: "shop.example.eu-west-1.rds.amazonaws.com", Port: 5432, User: "app"}
	for region, want := range map[string]string{"auto": "eu-west-1", "us-east-2": "us-east-2"} {
		token, err := iamToken(context.Background(), cfg, region)
		if err != nil {
			t.Fatal(err)
		}
		u, err := url.Parse("https://" + token)
		if err != nil {
			t.Fatal(err)
		}
		q := u.Query()
		if u.Host != "shop.example.eu-west-1.rds.amazonaws.com:5432" || q.Get("DBUser") != "app" || q.Get("Action") != "connect" {
			t.Errorf("the token is for %s, user %s, action %s", u.Host, q.Get("DBUser"), q.Get("Action"))
		}
		if credential := q.Get("X-Amz-Credential"); len(q.Get("X-Amz-Signature")) != 64 || !strings.Contains(credential, "/"+want+"/rds-db/") {
			t.Errorf("region %s: signed with %s", region, credential)
		}
	}
}
