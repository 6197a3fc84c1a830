//! Revealed values as results: wiped as soon as PostgreSQL lets go of the memory.

use pgrx::pg_sys;
use std::ffi::c_void;
use zeroize::Zeroize;

#[repr(C)]
struct Wipe {
    callback: pg_sys::MemoryContextCallback,
    start: *mut u8,
    length: usize,
}

/// A `text` or `bytea` datum with these bytes, in the current memory context, zeroed when that
/// context is reset or deleted (for a function result: after the row it belongs to).
///
/// Nobody frees the result of a function on its own, so the memory is the context's until then.
pub fn revealed(bytes: &[u8]) -> pg_sys::Datum {
    let length = bytes.len() + pg_sys::VARHDRSZ;
    // SAFETY: both blocks are allocated in the context whose callback reads them, which runs before
    // their memory is given back; `length` bytes were allocated for header and content.
    unsafe {
        let datum: *mut pg_sys::varlena = pg_sys::palloc(length).cast();
        pgrx::set_varsize_4b(datum, length as i32);
        let content = pgrx::vardata_any(datum).cast::<u8>().cast_mut();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), content, bytes.len());

        let wipe: *mut Wipe = pg_sys::palloc0(size_of::<Wipe>()).cast();
        (*wipe).start = content;
        (*wipe).length = bytes.len();
        (*wipe).callback.func = Some(run);
        (*wipe).callback.arg = wipe.cast();
        let context = pg_sys::CurrentMemoryContext;
        pg_sys::MemoryContextRegisterResetCallback(context, &raw mut (*wipe).callback);
        pg_sys::Datum::from(datum)
    }
}

unsafe extern "C-unwind" fn run(argument: *mut c_void) {
    // SAFETY: `argument` is the `Wipe` that `revealed` registered; see there.
    unsafe {
        let wipe: *mut Wipe = argument.cast();
        std::slice::from_raw_parts_mut((*wipe).start, (*wipe).length).zeroize();
    }
}
