//! Look-ups in the catalog by name; `None` if there is no such thing.

use pgrx::pg_sys::{self, Oid};
use std::ffi::{CString, c_int};

/// Whether our extension is installed in this database. To be asked by workers, which come into every
/// database: a schema of our name may be anybody's.
pub fn extension_is_installed() -> bool {
    // SAFETY: missing_ok.
    unsafe { pg_sys::get_extension_oid(c"meshhook_secrets".as_ptr(), true) != Oid::INVALID }
}

/// The OID of our extension in this database, which names this installation of it; 0 if there is none.
pub fn installation() -> u32 {
    // SAFETY: missing_ok.
    unsafe { pg_sys::get_extension_oid(c"meshhook_secrets".as_ptr(), true) }.to_u32()
}

/// As [`extension_is_installed`]; if it is, it stays so until the transaction ends.
pub fn extension_stays_installed() -> bool {
    // SAFETY: missing_ok; the lock is the one that DROP EXTENSION takes in exclusive mode. Whoever waited
    // for that finds nothing at the second look.
    unsafe {
        let find = || pg_sys::get_extension_oid(c"meshhook_secrets".as_ptr(), true);
        let extension = find();
        if extension == Oid::INVALID {
            return false;
        }
        let mode = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, 0, mode);
        find() == extension
    }
}

/// The relation of this name.
pub fn relation(schema: &str, name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: a look-up in the catalog caches.
    valid(unsafe { pg_sys::get_relname_relid(name.as_ptr(), namespace(schema)?) })
}

/// The function of this name without arguments.
pub fn function_without_arguments(schema: &str, name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    let schema = namespace(schema)?;
    // SAFETY: the cache is keyed by name, argument types and schema; all three live long enough.
    unsafe {
        let types = pg_sys::buildoidvector(std::ptr::null(), 0);
        valid(pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::PROCNAMEARGSNSP as c_int,
            pg_sys::Anum_pg_proc_oid as pg_sys::AttrNumber,
            pg_sys::Datum::from(name.as_ptr()),
            pg_sys::Datum::from(types),
            pg_sys::Datum::from(schema),
            pg_sys::Datum::null(),
        ))
    }
}

/// Whether a function returns a set of uuid.
pub fn returns_set_of_uuid(function: Oid) -> bool {
    // SAFETY: look-ups in the catalog caches.
    unsafe {
        pg_sys::get_func_retset(function) && pg_sys::get_func_rettype(function) == pg_sys::UUIDOID
    }
}

/// Whether a table has a trigger that calls `function` after each row's deletion.
pub fn has_delete_trigger(table: Oid, function: Oid) -> bool {
    // SAFETY: the relation is open while its triggers are read, and stays locked against changes of
    // them until the transaction ends.
    unsafe {
        let relation = pg_sys::relation_open(table, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let triggers = (*relation).trigdesc;
        let found = !triggers.is_null()
            && (0..(*triggers).numtriggers as usize).any(|index| {
                let trigger = &*(*triggers).triggers.add(index);
                let wanted = (pg_sys::TRIGGER_TYPE_ROW | pg_sys::TRIGGER_TYPE_DELETE) as i16;
                trigger.tgfoid == function
                    && trigger.tgtype & wanted == wanted
                    && matches!(trigger.tgenabled as u8, b'O' | b'A')
            });
        pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        found
    }
}

/// Whether a table is partitioned.
pub fn is_partitioned(table: Oid) -> bool {
    // SAFETY: a look-up in the catalog caches.
    unsafe { pg_sys::get_rel_relkind(table) as u8 == pg_sys::RELKIND_PARTITIONED_TABLE }
}

/// Whether a table is a partition.
pub fn is_partition(table: Oid) -> bool {
    // SAFETY: a look-up in the catalog caches.
    unsafe { pg_sys::get_rel_relispartition(table) }
}

/// Whether a column is of type uuid.
pub fn column_is_uuid(relation: Oid, column: &str) -> bool {
    let Ok(column) = CString::new(column) else {
        return false;
    };
    // SAFETY: look-ups in the catalog caches; 0 is no column.
    unsafe {
        let number = pg_sys::get_attnum(relation, column.as_ptr());
        number > 0 && pg_sys::get_atttype(relation, number) == pg_sys::UUIDOID
    }
}

fn namespace(name: &str) -> Option<Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: missing_ok.
    valid(unsafe { pg_sys::get_namespace_oid(name.as_ptr(), true) })
}

fn valid(oid: Oid) -> Option<Oid> {
    (oid != Oid::INVALID).then_some(oid)
}
