//! Random numbers from the server's own source.

use pgrx::pg_sys;

/// A number from 1 to 2^63 - 1. An ERROR where the operating system has no randomness.
pub fn number() -> i64 {
    loop {
        let mut bytes = [0_u8; 8];
        // SAFETY: writes as many bytes as there are.
        if !unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) } {
            pgrx::ereport!(pgrx::PgLogLevel::ERROR, pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "could not generate random values");
        }
        let number = i64::from_le_bytes(bytes) & i64::MAX;
        if number > 0 {
            return number;
        }
    }
}
