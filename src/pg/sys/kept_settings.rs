//! Settings of the session that asks for a job, for its workers. Choices stay with the job. Doors, which open or bound what a role can reach, count as
//! they stand where the work is done: those of the configuration, the database and the role are a worker's own; what was SET in the session that
//! asked counts only while who asked may set it.

use crate::error::Error;
use crate::pg::sys::{guc, sql, switch_user};
use pgrx::pg_sys;
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};

/// What whoever asks chooses.
const CHOICES: [&CStr; 8] = [
    c"search_path",
    c"bulk.created_at_url",
    c"bulk.resource_format",
    c"bulk.fast_path",
    c"bulk.range_size",
    c"bulk.storage_aws_account",
    c"bulk.storage_gcp_service_account",
    c"bulk.storage_azure_container",
];
/// What not everybody may set.
const DOORS: [&CStr; 7] = [
    c"bulk.allowed_hosts",
    c"bulk.ca_file",
    c"bulk.encode_threads",
    c"bulk.max_line_size",
    c"bulk.max_depth",
    c"bulk.storage_aws_machine_account",
    c"bulk.job_timeout",
];

fn doors() -> Vec<String> {
    DOORS.iter().map(|name| name.to_string_lossy().into_owned()).collect()
}

/// What this session gives a job, by name.
///
/// # Errors
/// As `sql::query`.
pub fn settings_to_keep() -> Result<BTreeMap<String, String>, Error> {
    let mut settings: BTreeMap<String, String> =
        CHOICES.iter().map(|name| (name.to_string_lossy().into_owned(), guc::value(name).unwrap_or_default())).collect();
    let set = "select s.name from pg_catalog.pg_settings s where s.name operator(pg_catalog.=) any ($1) \
        and s.source operator(pg_catalog.=) any ('{session,client}')";
    let names = sql::query(set, &[doors().into()], |row| row.get::<String>(1))?;
    // A SECURITY DEFINER function that somebody else's session happens to run has not the session's rights.
    let its_own = if switch_user::is_definer() { Some(may_be_set_by(vec![switch_user::current()])?) } else { None };
    for name in names.into_iter().flatten().filter(|name| its_own.as_ref().is_none_or(|own| own.contains(name))) {
        let value = CString::new(name.as_str()).ok().and_then(|name| guc::value(&name)).unwrap_or_default();
        settings.insert(name, value);
    }
    Ok(settings)
}

/// The doors that one of these roles may set.
fn may_be_set_by(roles: Vec<pg_sys::Oid>) -> Result<Vec<String>, Error> {
    let allowed = "select d.name from pg_catalog.unnest($1) as d (name), pg_catalog.unnest($2) as r (role) \
        where pg_catalog.has_parameter_privilege(r.role, d.name, 'SET')";
    let allowed = sql::query(allowed, &[doors().into(), roles.into()], |row| row.get::<String>(1))?;
    Ok(allowed.into_iter().flatten().collect())
}

/// Takes doors out of what is kept.
pub fn forget_doors(settings: &mut BTreeMap<String, String>) {
    settings.retain(|name, _| !DOORS.iter().any(|door| door.to_bytes() == name.as_bytes()));
}

/// Sets what `settings_to_keep` returned for the rest of the session: doors only where one of these roles may set them, who asked and whose session it was;
/// others are what they are by themselves.
///
/// # Errors
/// As `sql::query`.
pub fn set_kept(settings: &BTreeMap<String, String>, roles: Vec<pg_sys::Oid>) -> Result<(), Error> {
    let allowed = may_be_set_by(roles)?;
    for name in CHOICES.iter().chain(&DOORS) {
        let key = name.to_string_lossy();
        let counts = CHOICES.contains(name) || allowed.iter().any(|door| *door == key);
        let value = settings.get(key.as_ref()).filter(|_| counts).and_then(|value| CString::new(value.as_str()).ok());
        if value.is_none() && CHOICES.contains(name) {
            continue;
        }
        let text = value.as_ref().map_or(std::ptr::null(), |value| value.as_ptr());
        let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_SESSION);
        // SAFETY: a setting that is there, and what was its value, both NUL-terminated; null sets it back.
        unsafe { pg_sys::SetConfigOption(name.as_ptr(), text, context, source) };
    }
    if switch_user::authenticated() == switch_user::of_session() { Ok(()) } else { close_doors_of_another() }
}

/// Where a worker had to connect as another role than its job's, what is set for that role's sessions is none of the job's.
fn close_doors_of_another() -> Result<(), Error> {
    let anothers = "select s.name, s.boot_val from pg_catalog.pg_settings s where s.name operator(pg_catalog.=) any ($1) \
        and s.source operator(pg_catalog.=) any ('{user,\"database user\"}')";
    let found = sql::query(anothers, &[doors().into()], |row| Ok((row.get::<String>(1)?, row.get::<String>(2)?)))?;
    for (name, default) in found {
        let (Ok(name), Ok(default)) = (CString::new(name.unwrap_or_default()), CString::new(default.unwrap_or_default())) else { continue };
        let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_SESSION);
        // SAFETY: a setting that is there, and the value that it begins with, both NUL-terminated.
        unsafe { pg_sys::SetConfigOption(name.as_ptr(), default.as_ptr(), context, source) };
    }
    Ok(())
}

/// What this database and the connected role have set for their sessions: a process has what it was when it started.
///
/// # Errors
/// As `sql::query`.
pub fn of_database_and_role() -> Result<String, Error> {
    let found = sql::value::<String>(
        "select pg_catalog.string_agg(pg_catalog.concat_ws(' ', s.setdatabase, s.setrole, s.setconfig), ' ' \
            order by s.setdatabase, s.setrole) \
         from pg_catalog.pg_db_role_setting s join pg_catalog.pg_database d on d.datname operator(pg_catalog.=) pg_catalog.current_database() \
         where s.setdatabase operator(pg_catalog.=) any (array[0, d.oid]::pg_catalog.oid[]) \
            and s.setrole operator(pg_catalog.=) any (array[0, $1]::pg_catalog.oid[])",
        &[switch_user::of_session().into()],
    )?;
    Ok(found.unwrap_or_default())
}
