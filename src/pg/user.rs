//! Who runs what.

use crate::error::{Error, Result};
use pgrx::pg_sys::{self, Oid};
use std::ffi::{CStr, c_int};

/// The role whose rights count now.
pub fn current() -> Oid {
    // SAFETY: reads backend state.
    unsafe { pg_sys::GetUserId() }
}

/// The name of the role whose rights count now.
pub fn current_name() -> String {
    // SAFETY: the current user exists, and the name is a palloc'ed C string.
    unsafe {
        let name = pg_sys::GetUserNameFromId(current(), true);
        if name.is_null() {
            return current().to_u32().to_string();
        }
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// Whether row-level security does not apply to the current role (superusers included).
pub fn bypasses_rls() -> bool {
    // SAFETY: reads the catalog.
    unsafe { pg_sys::has_bypassrls_privilege(current()) }
}

/// Whether the current role is a superuser.
pub fn is_superuser() -> bool {
    // SAFETY: reads backend state.
    unsafe { pg_sys::superuser() }
}

/// Whether `role` is a superuser.
pub fn superuser_role(role: Oid) -> bool {
    // SAFETY: reads the catalog.
    unsafe { pg_sys::superuser_arg(role) }
}

/// The rights of another role, until dropped. If a statement fails, PostgreSQL itself puts the
/// user back when it aborts the (sub)transaction.
pub struct Acting {
    user: Oid,
    context: c_int,
}

impl Acting {
    /// Acts as the owner of our tables, for our own statements on tables that nobody else may
    /// touch. They use qualified names and operators only, or, as doctor's, a pinned search_path.
    pub fn as_owner() -> Result<Self> {
        let table = super::scan::relation_id("secret_versions")?;
        Ok(Self::as_role(owner_of(table)?))
    }

    /// Acts as `role`.
    pub fn as_role(role: Oid) -> Self {
        let mut acting = Self { user: Oid::INVALID, context: 0 };
        // As PostgreSQL's referential integrity does it: no policy of the owner's runs, whose helper
        // functions the caller might have got hold of by a temporary object; nor does it matter
        // whether the owner is still a superuser.
        let flags = pg_sys::SECURITY_LOCAL_USERID_CHANGE
            | pg_sys::SECURITY_RESTRICTED_OPERATION
            | pg_sys::SECURITY_NOFORCE_RLS;
        // SAFETY: the previous state is kept and put back on drop.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut acting.user, &mut acting.context);
            pg_sys::SetUserIdAndSecContext(role, acting.context | flags as c_int);
        }
        acting
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        // SAFETY: what `as_role` found.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) }
    }
}

/// The owner of a relation.
pub fn owner_of(relation: Oid) -> Result<Oid> {
    owner(pg_sys::SysCacheIdentifier::RELOID, relation, |tuple| {
        // SAFETY: a pg_class tuple starts with a FormData_pg_class.
        unsafe { (*tuple.cast::<pg_sys::FormData_pg_class>()).relowner }
    })
}

/// The owner of a function.
pub fn owner_of_function(function: Oid) -> Result<Oid> {
    owner(pg_sys::SysCacheIdentifier::PROCOID, function, |tuple| {
        // SAFETY: a pg_proc tuple starts with a FormData_pg_proc.
        unsafe { (*tuple.cast::<pg_sys::FormData_pg_proc>()).proowner }
    })
}

fn owner(
    cache: pg_sys::SysCacheIdentifier::Type,
    object: Oid,
    read: impl Fn(*mut u8) -> Oid,
) -> Result<Oid> {
    // SAFETY: the tuple is released before returning, and its fixed part lies at t_hoff.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache as c_int, pg_sys::Datum::from(object));
        if tuple.is_null() {
            return Err(Error::internal("An object vanished while it was used."));
        }
        let data = (*tuple).t_data;
        let role = read(data.cast::<u8>().add((*data).t_hoff as usize));
        pg_sys::ReleaseSysCache(tuple);
        Ok(role)
    }
}
