//! Work as another role, and who is who.

use pgrx::pg_sys;
use std::ffi::c_int;

/// A role's number.
pub type Role = pg_sys::Oid;

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

/// While it lives, what is called cannot become another role: a session may be one of a pool, whose user may become many. Where the session has
/// already left its own role, nothing may be left to run at the commit either, when this is over: PostgreSQL refuses deferred triggers, cursors WITH
/// HOLD and temporary tables (42501). Settings stay what is called makes of them. After an ERROR the (sub)transaction's end takes it back.
#[derive(Debug)]
pub struct Confined {
    user: pg_sys::Oid,
    context: c_int,
}

impl Confined {
    /// Confines what is called from here on.
    pub fn enter() -> Confined {
        let is_own = current() == of_session() && current() == authenticated();
        let left = if is_own { 0 } else { pg_sys::SECURITY_RESTRICTED_OPERATION };
        let (user, context) = enter(current(), (pg_sys::SECURITY_LOCAL_USERID_CHANGE | left) as c_int);
        Confined { user, context }
    }
}

impl Drop for Confined {
    fn drop(&mut self) {
        leave(self.user, self.context);
    }
}

/// The current user.
pub fn current() -> pg_sys::Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetUserId() }
}

/// Whether a SECURITY DEFINER function of another's is running: a role that the session took is the outer one too.
pub fn is_definer() -> bool {
    // SAFETY: reads a backend variable.
    current() != unsafe { pg_sys::GetOuterUserId() }
}

/// Who logged in; SET SESSION AUTHORIZATION makes the session another's.
pub fn authenticated() -> pg_sys::Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetAuthenticatedUserId() }
}

/// Who is connected.
pub fn of_session() -> pg_sys::Oid {
    // SAFETY: reads a backend variable.
    unsafe { pg_sys::GetSessionUserId() }
}
