//! Jobs that validate, and what tests do to their workers.

use crate::support::cluster::Database;
use crate::support::statement::{value, wait_until};
use postgres::Client;

/// Enters patients; every tenth is invalid.
pub fn patients(client: &mut Client, count: u32) {
    client
        .batch_execute(&format!(
            "select bulk.create_resource_table('Patient');
            insert into patient (id, txid, status, resource)
            select n::text, n, 'created', case when n % 10 = 0 then '{{\"name\": {{\"family\": \"F\"}}}}'::jsonb
                else jsonb_build_object('active', true, 'name', jsonb_build_array(jsonb_build_object('family', repeat('x', n % 500)))) end
            from generate_series(1, {count}) n"
        ))
        .unwrap();
}

/// State, counts and message of a job.
pub fn outcome(client: &mut Client, id: &str) -> String {
    value(client, &format!("select concat_ws(' ', state, read, stored, skipped, rejected, message) from bulk.job where id = '{id}'"))
}

/// Asks for a validation and waits for its end.
pub fn validated(client: &mut Client, arguments: &str) -> (String, String) {
    let id = value(client, &format!("bulk.validate({arguments})"));
    let state = value(client, &format!("bulk.wait('{id}', '60 s')"));
    (id, state)
}

/// A session that keeps a job's worker from writing down what it found.
pub fn hold(database: &Database) -> Client {
    let mut holder = database.connect();
    holder.batch_execute("begin; lock table bulk_internal.load_error in exclusive mode").unwrap();
    holder
}

/// The worker of a job that waits for a lock.
pub fn stuck(client: &mut Client, id: &str) -> i32 {
    let query = format!(
        "select coalesce(max(f.pid), 0) from bulk.job_file f join pg_stat_activity a using (pid) where f.job_id = '{id}' and a.wait_event_type = 'Lock'"
    );
    wait_until("the worker waits for the lock", || value(client, &query) != "0");
    value(client, &query).parse().unwrap()
}

/// Waits until a process is no more.
pub fn is_gone(pid: i32) {
    wait_until("the worker is gone", || !std::path::Path::new(&format!("/proc/{pid}")).exists());
}
