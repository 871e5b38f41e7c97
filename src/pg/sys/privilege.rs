//! Rights that are no table's: who may read the server's files, who may reach the network.

use crate::error::Error;
use crate::pg::sys::switch_user;
use crate::store::bucket::Bucket;
use crate::store::source::Source;
use pgrx::pg_sys;
use std::ffi::CStr;

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
    ///
    /// # Errors
    /// `MissingRole` (42501) names the role.
    pub fn require(self) -> Result<(), Error> {
        let (name, role, action) = self.role();
        // SAFETY: plain catalog look-ups; a missing role gives InvalidOid, whose privileges only a superuser has.
        let granted = unsafe { pg_sys::get_role_oid(name.as_ptr(), true) };
        if has_privileges(granted) { Ok(()) } else { Err(Error::MissingRole { action, role }) }
    }
}

fn has_privileges(role: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups with any oids.
    unsafe { pg_sys::has_privs_of_role(switch_user::current(), role) }
}
