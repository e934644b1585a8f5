package postgres

import "testing"

func TestATransactionNumberIsJudgedAcrossTheWrapAround(t *testing.T) {
	t.Parallel()
	f := func(snapshot string, xid uint32, want bool) {
		t.Helper()
		v, err := parseVisibility(snapshot)
		if err != nil {
			t.Fatal(err)
		}
		if v.sees(xid) != want {
			t.Errorf("%s sees %d: %t", snapshot, xid, !want)
		}
	}
	f("100:110:100,105", 99, true)
	f("100:110:100,105", 100, false)
	f("100:110:100,105", 104, true)
	f("100:110:100,105", 105, false)
	f("100:110:100,105", 110, false)
	f("100:110:100,105", 4000000000, true) // of the epoch before
	f("4294967290:4294967300:4294967291,4294967298", 4294967289, true)
	f("4294967290:4294967300:4294967291,4294967298", 4294967291, false)
	f("4294967290:4294967300:4294967291,4294967298", 4294967292, true)
	f("4294967290:4294967300:4294967291,4294967298", 2, false) // 4294967298
	f("4294967290:4294967300:4294967291,4294967298", 3, true)
	f("4294967290:4294967300:4294967291,4294967298", 4, false)
	f("8589934600:8589934600:", 4294967295, true)
	f("8589934600:8589934600:", 8, false)
	f("8589934600:8589934600:", 7, true)
	for _, bad := range []string{"", "1:2", "a:2:", "1:b:", "1:2:c"} {
		if _, err := parseVisibility(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}
