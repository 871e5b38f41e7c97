//! An argument of type jsonb as its text: numbers keep their digits, and what nests too deep is an error of ours.

use pgrx::callconv::{Arg, ArgAbi};
use pgrx::nullable::Nullable;
use pgrx::{FromDatum, pg_sys};
use std::ffi::CStr;

/// The text of a jsonb.
#[derive(Debug)]
pub struct Json(pub String);

pgrx::impl_sql_translatable!(Json, "jsonb");

impl FromDatum for Json {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Json> {
        if is_null {
            return None;
        }
        // SAFETY: the output function of jsonb, and a value of it.
        let text = unsafe { pg_sys::OidOutputFunctionCall(pg_sys::Oid::from(pg_sys::F_JSONB_OUT), datum) };
        // SAFETY: a NUL-terminated string in the current memory.
        Some(Json(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()))
    }
}

// SAFETY: a null is known by its flag; any other datum is of the type that the function's SQL declares.
unsafe impl<'fcx> ArgAbi<'fcx> for Json {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Json {
        // SAFETY: pgrx checked the argument's type when it was declared; it copies the text.
        unsafe { arg.unbox_arg_using_from_datum() }.unwrap_or_else(|| Json("null".to_owned()))
    }

    unsafe fn unbox_nullable_arg(arg: Arg<'_, 'fcx>) -> Nullable<Json> {
        // SAFETY: pgrx checked the argument's type when it was declared; it copies the text.
        unsafe { arg.unbox_arg_using_from_datum() }.into()
    }
}
