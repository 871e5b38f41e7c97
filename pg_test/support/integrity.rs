//! What a test leaves in its database must be whole: every heap and every index of its resource tables, by amcheck. And no worker is left
//! behind.

use crate::support::statement::{value, wait_until};
use postgres::Client;
use std::sync::Once;

/// Tables of resources, with their B-tree indexes.
const TABLES: &str = "select c.oid::regclass::text, coalesce(array_agg(i.indexrelid::regclass::text) filter (where i.indexrelid is not null), '{}')
    from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'resource' and not a.attisdropped
    left join (pg_index i join pg_class x on x.oid = i.indexrelid and x.relam = (select oid from pg_am where amname = 'btree')) on i.indrelid = c.oid
    where c.relkind = 'r' and c.relpersistence <> 't' group by c.oid";

/// Checks a database. Builds of PostgreSQL without contrib have no amcheck: then nothing is checked.
pub fn check(mut client: Client) {
    let left = "select count(*) from pg_stat_activity where backend_type = 'bulk worker' and datname = current_database()";
    wait_until("no worker is left", || value(&mut client, left) == "0");
    if value(&mut client, "select count(*) from pg_available_extensions where name = 'amcheck'") == "0" {
        static SAID: Once = Once::new();
        SAID.call_once(|| println!("this PostgreSQL has no amcheck: tables and indexes are NOT CHECKED"));
        return;
    }
    client.batch_execute("create extension if not exists amcheck").unwrap();
    // A session that a test left open may hold a lock; that is not what is looked for.
    client.batch_execute("set lock_timeout = '5s'").unwrap();
    for row in client.query(TABLES, &[]).unwrap() {
        let (table, indexes): (String, Vec<String>) = (row.get(0), row.get(1));
        check_table(&mut client, &table, &indexes);
    }
}

fn check_table(client: &mut Client, table: &str, indexes: &[String]) {
    let found = client.query("select blkno, offnum, msg from verify_heapam($1::text::regclass, check_toast => true)", &[&table]).unwrap();
    let found: Vec<String> = found
        .iter()
        .map(|row| format!("{:?} {:?} {}", row.get::<_, i64>(0), row.get::<_, Option<i32>>(1), row.get::<_, String>(2)))
        .collect();
    assert!(found.is_empty(), "{table}: {found:?}");
    for index in indexes {
        client.execute("select bt_index_check($1::text::regclass, true)", &[index]).unwrap();
    }
}
