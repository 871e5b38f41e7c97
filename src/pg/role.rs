//! Rights that are no table's: who may read the server's files, who may reach the network.

use crate::error::Error;
use crate::store::bucket::Bucket;
use crate::store::source::Source;
use pgrx::pg_sys;
use std::ffi::{CStr, c_int};

/// What a source or sink takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    ReadServerFiles,
    WriteServerFiles,
    Remote,
    Admin,
    Accounts,
}

impl Right {
    /// What reading a source takes.
    pub fn to_read(source: &Source) -> Right {
        match source {
            Source::File(_) => Right::ReadServerFiles,
            Source::Http(_) | Source::Object(..) => Right::Remote,
        }
    }

    /// What listing a bucket and reading of it takes.
    pub fn to_list(bucket: &Bucket) -> Right {
        match bucket {
            Bucket::Directory(_) => Right::ReadServerFiles,
            Bucket::S3(_) | Bucket::Gcs(_) | Bucket::Azure(_) => Right::Remote,
        }
    }

    /// What writing to a bucket takes beside it.
    pub fn to_write(bucket: &Bucket) -> Right {
        match bucket {
            Bucket::Directory(_) => Right::WriteServerFiles,
            Bucket::S3(_) | Bucket::Gcs(_) | Bucket::Azure(_) => Right::Remote,
        }
    }

    fn role(self) -> (&'static CStr, &'static str, &'static str) {
        match self {
            Right::ReadServerFiles => (c"pg_read_server_files", "pg_read_server_files", "read files of the server"),
            Right::WriteServerFiles => (c"pg_write_server_files", "pg_write_server_files", "write files of the server"),
            Right::Remote => (c"bulk_remote", "bulk_remote", "reach other hosts"),
            Right::Accounts => (c"bulk_admin", "bulk_admin", "keep accounts of stores"),
            Right::Admin => (c"bulk_admin", "bulk_admin", "set versions and times of resources"),
        }
    }

    /// Refuses the current user when it lacks the role's privileges.
    pub fn require(self) -> Result<(), Error> {
        let (name, role, action) = self.role();
        // SAFETY: plain catalog look-ups; a missing role gives InvalidOid, whose privileges only a superuser has.
        let granted = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
        if has_privileges(granted) { Ok(()) } else { Err(Error::MissingRole { action, role }) }
    }
}

fn has_privileges(role: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups with any oids.
    unsafe { pg_sys::has_privs_of_role(current(), role) }
}

/// Does work as another role: nothing that the work calls can leave it, or change the session.
pub fn within<T>(role: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    acting_as(role, (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as c_int, work)
}

/// Does work as another role, under more restrictions. After an ERROR the end of the (sub)transaction sets both back.
pub fn acting_as<T>(role: pg_sys::Oid, restrictions: c_int, work: impl FnOnce() -> T) -> T {
    let (before, context) = enter(role, restrictions);
    let done = work();
    leave(before, context);
    done
}

/// Becomes another role, under more restrictions: what to `leave` it with.
pub fn enter(role: pg_sys::Oid, restrictions: c_int) -> (pg_sys::Oid, c_int) {
    let (mut before, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: where the two values go.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut before, &mut context) };
    // SAFETY: a role that exists.
    unsafe { pg_sys::SetUserIdAndSecContext(role, context | restrictions) };
    (before, context)
}

/// Goes back to what `enter` gave.
pub fn leave(before: pg_sys::Oid, context: c_int) {
    // SAFETY: what was set before.
    unsafe { pg_sys::SetUserIdAndSecContext(before, context) };
}

/// The current user.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetUserId() }
}

/// Who is connected.
pub fn of_session() -> pg_sys::Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetSessionUserId() }
}
