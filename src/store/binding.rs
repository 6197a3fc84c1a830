//! The binding to the host's projects table (`settings`, key `attach_projects`), and the statements
//! that ask the host. It holds names, not object ids, so that it survives dump and restore; what
//! its names do not find any more locks out.

use super::Uuid;
use crate::{
    error::{Error, Result},
    pg::{
        catalog,
        scan::{self, Key, Sees},
        spi::{Found, MadeStatement, May, Statement, parameter, uuid},
        user::{self, Acting},
    },
};
use pgrx::{
    JsonB,
    pg_sys::{Oid, TEXTOID, UUIDARRAYOID, UUIDOID},
};
use serde::Deserialize;
use std::{cell::RefCell, ops::ControlFlow, rc::Rc};

/// What `attach_projects` wrote.
#[derive(Deserialize, PartialEq, Eq)]
struct Stored {
    schema: String,
    table: String,
    id_column: String,
    owner_column: Option<String>,
    member_schema: Option<String>,
    member_function: Option<String>,
    reveal_schema: Option<String>,
    reveal_function: Option<String>,
}

/// The binding, ready for use.
pub struct Binding {
    stored: Stored,
    exists: MadeStatement,
    lock: MadeStatement,
    members: MadeStatement,
    revealers: Option<MadeStatement>,
    remaining: MadeStatement,
}

/// The binding of this database; `None` if there is none.
pub fn current() -> Result<Option<Rc<Binding>>> {
    thread_local! {
        static KEPT: RefCell<Option<Rc<Binding>>> = const { RefCell::new(None) };
    }
    let key = [Key::text(1, "attach_projects")];
    let index = Some("settings_pkey");
    let stored = scan::rows("settings", index, Sees::Statement, &key, |row| {
        let JsonB(value) = row.required(2)?;
        Ok(ControlFlow::Break(value))
    })?;
    let Some(stored) = stored else {
        // Lost, not missing, if triggers of a binding are still there: nobody gets anywhere.
        return if has_triggers()? { Err(Error::not_permitted()) } else { Ok(None) };
    };
    let stored: Stored = serde_json::from_value(stored)
        .map_err(|_| Error::internal("The binding in settings cannot be read."))?;
    KEPT.with_borrow_mut(|kept| match kept {
        Some(binding) if binding.stored == stored => Ok(Some(Rc::clone(binding))),
        _ => {
            let binding = Rc::new(Binding::prepare(stored)?);
            *kept = Some(Rc::clone(&binding));
            Ok(Some(binding))
        }
    })
}

impl Binding {
    fn prepare(stored: Stored) -> Result<Self> {
        // Rows of children that were added later do not count: their deletion would not be noticed.
        let only = if catalog::is_partitioned(stored.table_oid()?) { "" } else { "ONLY " };
        let table = format!("{only}{}", qualified(&stored.schema, &stored.table));
        let id = quoted(&stored.id_column);
        let function = |schema: &Option<String>, name: &Option<String>| {
            schema.as_ref().zip(name.as_ref()).map(|(schema, name)| qualified(schema, name))
        };
        let called = |function: &str| {
            MadeStatement::new(format!("SELECT pg_catalog.array_agg(p) FROM {function}() p"), &[])
        };
        let members = match (
            function(&stored.member_schema, &stored.member_function),
            &stored.owner_column,
        ) {
            (Some(function), _) => called(&function)?,
            (None, Some(owner)) => MadeStatement::new(
                format!(
                    "SELECT pg_catalog.array_agg(t.{id}) FROM {table} t WHERE t.{} OPERATOR(pg_catalog.=) $1::{}",
                    quoted(owner),
                    if catalog::column_is_uuid(stored.table_oid()?, owner) {
                        "pg_catalog.uuid"
                    } else {
                        "pg_catalog.text"
                    },
                ),
                &[TEXTOID],
            )?,
            (None, None) => return Err(Error::internal("The binding names nobody.")),
        };
        let revealers = function(&stored.reveal_schema, &stored.reveal_function)
            .map(|function| called(&function))
            .transpose()?;
        Ok(Self {
            exists: MadeStatement::new(
                format!("SELECT FROM {table} t WHERE t.{id} OPERATOR(pg_catalog.=) $1"),
                &[UUIDOID],
            )?,
            lock: MadeStatement::new(
                format!(
                    "SELECT FROM {table} t WHERE t.{id} OPERATOR(pg_catalog.=) $1 FOR KEY SHARE"
                ),
                &[UUIDOID],
            )?,
            remaining: MadeStatement::new(format!("SELECT t.{id} FROM {table} t"), &[])?,
            members,
            revealers,
            stored,
        })
    }

    /// Whether the host has this project. `May::Write` sees what this very statement has changed.
    pub fn exists(&self, project: &Uuid, may: May) -> Result<bool> {
        let _owner = self.as_table_owner()?;
        self.exists.run(may, &[uuid(project)], |found| Ok(found.count() > 0))
    }

    /// Whether the host has this project; if so, it cannot be deleted until the transaction ends.
    pub fn exists_and_stays(&self, project: &Uuid) -> Result<bool> {
        let _owner = self.as_table_owner()?;
        self.lock.run(May::Write, &[uuid(project)], |found| Ok(found.count() > 0))
    }

    /// All projects of the host.
    pub fn remaining(&self) -> Result<Vec<Uuid>> {
        let _owner = self.as_table_owner()?;
        self.remaining.run(May::Read, &[], |found| {
            if found.type_of(1) != UUIDOID {
                return Err(Error::not_permitted());
            }
            let ids = (0..found.count()).filter_map(|row| found.get::<pgrx::Uuid>(row, 1));
            Ok(ids.map(|id| *id.as_bytes()).collect())
        })
    }

    /// The projects that the caller is a member of. `subject` is the claim `sub` of the JWT.
    pub fn member_projects(&self, subject: Option<&str>) -> Result<Vec<pgrx::Uuid>> {
        match (&self.stored.member_schema, &self.stored.member_function) {
            (Some(schema), Some(function)) => {
                self.require_trusted(schema, function)?;
                self.members.run(May::Read, &[], ids)
            }
            _ => match subject {
                Some(subject) => {
                    let _owner = self.as_table_owner()?;
                    self.members.run(May::Read, &[parameter(subject)], ids)
                }
                None => Ok(Vec::new()),
            },
        }
    }

    /// The projects whose secrets the caller may reveal; `None` if membership is enough.
    pub fn revealable_projects(&self) -> Result<Option<Vec<pgrx::Uuid>>> {
        let Some(revealers) = &self.revealers else {
            return Ok(None);
        };
        if let (Some(schema), Some(function)) =
            (&self.stored.reveal_schema, &self.stored.reveal_function)
        {
            self.require_trusted(schema, function)?;
        }
        revealers.run(May::Read, &[], ids).map(Some)
    }

    /// Whether the owner column is compared with a user id that must be a UUID.
    pub fn subject_must_be_uuid(&self) -> Result<bool> {
        match &self.stored.owner_column {
            Some(owner) => Ok(catalog::column_is_uuid(self.stored.table_oid()?, owner)),
            None => Ok(false),
        }
    }

    /// The host's function decides who sees what, so it must still belong to whom it was trusted
    /// from: a function of the same name that somebody else made since locks out.
    fn require_trusted(&self, schema: &str, function: &str) -> Result<()> {
        let function = catalog::function_without_arguments(schema, function)
            .ok_or_else(Error::not_permitted)?;
        let owner = user::owner_of_function(function)?;
        let table_owner = user::owner_of(self.stored.table_oid()?)?;
        let trusted = owner == table_owner || user::superuser_role(owner);
        if trusted && catalog::returns_set_of_uuid(function) {
            Ok(())
        } else {
            Err(Error::not_permitted())
        }
    }

    fn as_table_owner(&self) -> Result<Acting> {
        Ok(Acting::as_role(user::owner_of(self.stored.table_oid()?)?))
    }
}

impl Stored {
    /// The projects table, as long as it carries our trigger. Only a superuser can put that there (and
    /// pg_restore does), so a table that somebody else made under the same name locks out.
    fn table_oid(&self) -> Result<Oid> {
        let table = catalog::relation(&self.schema, &self.table);
        let trigger =
            catalog::function_without_arguments("meshhook_secrets", "host_project_changed");
        match (table, trigger) {
            (Some(table), Some(trigger))
                if catalog::has_delete_trigger(table, trigger)
                    && catalog::column_is_uuid(table, &self.id_column) =>
            {
                Ok(table)
            }
            _ => Err(Error::not_permitted()),
        }
    }
}

/// The one array that a host's function was aggregated to. The function may have been replaced by one
/// of another type since it was attached.
fn ids(found: &Found) -> Result<Vec<pgrx::Uuid>> {
    if found.type_of(1) != UUIDARRAYOID {
        return Err(Error::not_permitted());
    }
    Ok(found
        .get::<Vec<Option<pgrx::Uuid>>>(0, 1)
        .unwrap_or_default()
        .into_iter()
        .flatten()
        .collect())
}

/// Whether a table of the host carries our triggers.
fn has_triggers() -> Result<bool> {
    static FIND: Statement = Statement::new(
        c"SELECT FROM pg_catalog.pg_depend d WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.refobjid OPERATOR(pg_catalog.=) 'meshhook_secrets.host_project_changed()'::pg_catalog.regprocedure AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_trigger'::pg_catalog.regclass LIMIT 1",
        &[],
    );
    let _owner = Acting::as_owner()?;
    FIND.run(May::Read, &[], |found| Ok(found.count() > 0))
}

fn qualified(schema: &str, name: &str) -> String {
    format!("{}.{}", quoted(schema), quoted(name))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
