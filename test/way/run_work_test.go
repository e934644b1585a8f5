package way_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/leatdata/leat/internal/testlab"
)

// business changes a database as its customers would: statement gives one, made with the dice.
type business struct {
	db        *testlab.DB
	statement func(dice *rand.Rand) string
}

// work makes a number of transactions on three connections and returns when all are done. What collides is rolled back, as
// is every tenth transaction, and every fifth has a savepoint that is.
func (b business) work(t testing.TB, transactions int, seed uint64) {
	t.Helper()
	ctx := context.Background()
	var customers sync.WaitGroup
	committed := [3]int{}
	for i := range committed {
		conn, dice := b.db.Connect(), rand.New(rand.NewPCG(seed, uint64(i)))
		customers.Go(func() {
			for range transactions / len(committed) {
				if _, err := conn.PgConn().Exec(ctx, b.transaction(dice)).ReadAll(); err == nil {
					committed[i]++
				} else if _, err := conn.PgConn().Exec(ctx, "rollback").ReadAll(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	customers.Wait()
	for _, n := range committed {
		if n < transactions/len(committed)/2 {
			t.Errorf("of %d transactions %v could be done", transactions, committed)
		}
	}
}

func (b business) transaction(dice *rand.Rand) string {
	var s strings.Builder
	s.WriteString("begin;")
	for range 1 + dice.IntN(4) {
		s.WriteString(b.statement(dice) + ";")
	}
	if dice.IntN(5) == 0 {
		s.WriteString("savepoint s;" + b.statement(dice) + "; rollback to s;" + b.statement(dice) + ";")
	}
	if dice.IntN(10) == 0 {
		s.WriteString("rollback")
	} else {
		s.WriteString("commit")
	}
	return s.String()
}

const shopSQL = `
create table customers (id bigint primary key, name text not null, email varchar(80), balance numeric(12,2), exact numeric, active boolean, since timestamptz, born date, ref uuid, tags text[], raw bytea, extra jsonb);
create table docs (id int primary key, title text, body text);
alter table docs alter body set storage external;
create table lines (order_id bigint, no int, sku text, qty smallint, primary key (order_id, no));
create table notes (at timestamp, note text);
alter table notes replica identity full;
create table visits (id bigint, day date, page text, primary key (id, day)) partition by range (day);
create table visits_early partition of visits for values from (minvalue) to ('2026-03-01');
create table visits_late partition of visits for values from ('2026-03-01') to (maxvalue);
insert into customers select i, 'Kundin ' || i, null, i * 1.25, i / 7.0, i % 2 = 0, '2026-01-01 00:00:00.123Z'::timestamptz + i * interval '1 h', date '1960-01-01' + i, md5(i::text)::uuid, array['a', 'ü' || i], decode(md5(i::text), 'hex'), jsonb_build_object('n', i) from generate_series(1, 800) i;
insert into docs select i, 'doc ' || i, (select string_agg(md5(i::text || k), '') from generate_series(1, 100) k) from generate_series(1, 150) i;
insert into lines select i / 3, i % 3, 'sku ' || i % 17, i % 10 from generate_series(3, 1500) i;
insert into notes select timestamp '2026-01-01' + (i % 50) * interval '1 min', 'note ' || i % 20 from generate_series(1, 400) i;
insert into visits select i, date '2026-01-01' + i % 120, '/page/' || i % 9 from generate_series(1, 900) i;
analyze`

// openShop fills a database with a small shop that has what lakes trip over.
func openShop(db *testlab.DB) business {
	db.Exec(shopSQL)
	return business{db, func(dice *rand.Rand) string {
		n := dice.IntN(900)
		switch dice.IntN(16) {
		case 0, 1:
			return fmt.Sprintf("insert into customers (id, name, exact, since, tags) values (%d, 'new', %d.5, now(), '{}')", 1000+dice.IntN(1<<30), n)
		case 2, 3:
			return fmt.Sprintf("update customers set balance = balance + 1.5, email = 'k%d@example.com', tags = tags || 'x'::text where id = %d", n, n)
		case 4:
			return fmt.Sprintf("delete from customers where id = %d", n)
		case 5:
			return fmt.Sprintf("update customers set id = %d, active = not active where id = %d", 1000+dice.IntN(1<<30), n)
		case 6:
			return fmt.Sprintf("update docs set title = 'title %d' where id = %d", n, n%150)
		case 7:
			return fmt.Sprintf("update docs set id = id + 1000 where id = %d", n%150)
		case 8:
			return fmt.Sprintf("update docs set body = repeat('%d', 2000) where id %% 150 = %d", n, n%150)
		case 9:
			return fmt.Sprintf("insert into lines values (%d, 1, 'sku', 1) on conflict (order_id, no) do update set qty = lines.qty + 1", n)
		case 10:
			return fmt.Sprintf("delete from lines where order_id = %d", n)
		case 11:
			return fmt.Sprintf("insert into notes values (timestamp '2026-02-01', 'note %d'), (null, null)", n%20)
		case 12:
			return fmt.Sprintf("update notes set note = note || '!' where ctid = (select ctid from notes where note = 'note %d' limit 1)", n%20)
		case 13:
			return fmt.Sprintf("delete from notes where ctid = (select ctid from notes where note = 'note %d' limit 1)", n%20)
		case 14:
			return fmt.Sprintf("update visits set day = day + 30, page = '/moved' where id = %d", n)
		}
		return fmt.Sprintf("delete from visits where id = %d; insert into visits values (%d, date '2026-02-20' + %d, '/again')", n, n, n%20)
	}}
}

// openPagila loads Pagila. Its country has REPLICA IDENTITY NOTHING, and payment has no key: they are made to tell whole rows.
func openPagila(t testing.TB, db *testlab.DB) business {
	db.Load(testlab.Pagila(t))
	db.Exec("alter table country replica identity full; alter table payment replica identity full")
	for _, r := range db.Query("select inhrelid::regclass from pg_inherits where inhparent = 'payment'::regclass") {
		db.Exec("alter table " + r[0] + " replica identity full")
	}
	return business{db, func(dice *rand.Rand) string {
		film, customer, rental := 1+dice.IntN(1000), 1+dice.IntN(599), 1+dice.IntN(16000)
		switch dice.IntN(14) {
		case 0, 1:
			return fmt.Sprintf("insert into rental (inventory_id, customer_id, staff_id, rental_period) values (%d, %d, 1, tsrange(localtimestamp, null))", 1+dice.IntN(4500), customer)
		case 2, 3:
			return fmt.Sprintf("update rental set rental_period = tsrange(lower(rental_period), greatest(lower(rental_period), localtimestamp)) where rental_id = %d", rental)
		case 4, 5:
			return fmt.Sprintf("insert into payment (customer_id, staff_id, rental_id, amount, payment_date) values (%d, 2, %d, %d.99, timestamp '2006-12-20' + interval '%d days')", customer, rental, dice.IntN(12), dice.IntN(250))
		case 6:
			return fmt.Sprintf("update payment set amount = amount + 0.01 where rental_id = %d", rental)
		case 7:
			return fmt.Sprintf("update payment set payment_date = payment_date + interval '1 month' where rental_id = %d", rental) // into another partition
		case 8:
			return fmt.Sprintf("delete from payment where rental_id = %d", rental)
		case 9:
			return fmt.Sprintf("update film set rental_rate = rental_rate + 0.01, special_features = array['Trailers', 'Ähem, \"quoted\"'], rating = 'R', description = null where film_id = %d", film)
		case 10:
			return fmt.Sprintf("delete from film_actor where film_id = %d; insert into film_actor (actor_id, film_id) values (%d, %d)", film, 1+dice.IntN(200), film)
		case 11:
			return fmt.Sprintf("update film_category set category_id = %d where film_id = %d", 1+dice.IntN(16), film) // part of the key
		case 12:
			return fmt.Sprintf("insert into country (country) values ('Lake %d'); update country set country = country || '!' where country_id = %d", film, 1+dice.IntN(150))
		}
		return fmt.Sprintf("delete from country where country_id > 109 and country_id = %d; update customer set email = null, activebool = not activebool where customer_id = %d", 100+dice.IntN(100), customer)
	}}
}
