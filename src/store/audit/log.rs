//! `audit_log`.

use super::{Stored, required, time};
use crate::{
    error::{Error, Result},
    pg::{
        spi::{Found, MadeStatement, May, Parameter, Statement, parameter, uuid},
        user::Acting,
    },
    store::{Timestamp, Uuid, guard::change},
};
use meshhook_secrets_core::audit::{Outcome, Record};
use pgrx::{
    IntoDatum,
    datum::TimestampWithTimeZone,
    pg_sys::{
        Datum, INT4ARRAYOID, INT4OID, INT8ARRAYOID, INT8OID, TEXTARRAYOID, TEXTOID,
        TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, UUIDARRAYOID, UUIDOID,
    },
};

macro_rules! columns {
    () => {
        "id, \"time\", action, outcome, sqlstate, project_id, secret_id, name, version, kek_id, purpose, detail, actor, actor_role, claimed_sub, claimed_role, client_address, application_name, request_id, transaction_id, times"
    };
}

/// SQL with the columns of `audit_log` in it.
macro_rules! sql {
    ($($part:expr),+) => {
        match std::ffi::CStr::from_bytes_with_nul(concat!($($part),+, "\0").as_bytes()) {
            Ok(sql) => sql,
            Err(_) => c"",
        }
    };
}

/// Adds records; their partition must be there.
pub fn insert(stored: &[Stored]) -> Result<()> {
    /// For a few records a statement each costs less than arrays of all columns.
    const FEW: usize = 6;
    if stored.len() <= FEW { stored.iter().try_for_each(insert_one) } else { insert_many(stored) }
}

fn insert_one(stored: &Stored) -> Result<()> {
    static INSERT: Statement = Statement::new(
        sql!(
            "INSERT INTO meshhook_secrets.audit_log (",
            columns!(),
            ") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)"
        ),
        &[
            INT8OID,
            TIMESTAMPTZOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            UUIDOID,
            UUIDOID,
            TEXTOID,
            INT4OID,
            INT4OID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            INT8OID,
            INT4OID,
        ],
    );
    let record = &stored.record;
    let text = |text: &Option<String>| text.as_deref().and_then(parameter);
    let parameters = [
        parameter(stored.id),
        Some(Datum::from(record.time)),
        parameter(record.action.as_str()),
        parameter(record.outcome.as_str()),
        text(&record.sqlstate),
        record.project_id.as_ref().and_then(uuid),
        record.secret_id.as_ref().and_then(uuid),
        text(&record.name),
        record.version.and_then(parameter),
        record.kek_id.and_then(parameter),
        text(&record.purpose),
        text(&record.detail),
        parameter(record.actor.as_str()),
        text(&record.actor_role),
        text(&record.claimed_sub),
        text(&record.claimed_role),
        text(&record.client_address),
        text(&record.application_name),
        text(&record.request_id),
        record.transaction_id.and_then(parameter),
        parameter(record.times),
    ];
    let _owner = Acting::as_owner()?;
    match change(|| INSERT.execute(May::Write, &parameters))? {
        1 => Ok(()),
        _ => Err(Error::corrupted()),
    }
}

fn insert_many(stored: &[Stored]) -> Result<()> {
    static INSERT: Statement = Statement::new(
        sql!(
            "INSERT INTO meshhook_secrets.audit_log (",
            columns!(),
            ") SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21)"
        ),
        &[
            INT8ARRAYOID,
            TIMESTAMPTZARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            UUIDARRAYOID,
            UUIDARRAYOID,
            TEXTARRAYOID,
            INT4ARRAYOID,
            INT4ARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            TEXTARRAYOID,
            INT8ARRAYOID,
            INT4ARRAYOID,
        ],
    );
    fn array<'a, T: IntoDatum>(
        stored: &'a [Stored],
        field: impl Fn(&'a Stored) -> Option<T>,
    ) -> Parameter
    where
        Vec<Option<T>>: IntoDatum,
    {
        parameter(stored.iter().map(field).collect::<Vec<Option<T>>>())
    }
    let text = |field: fn(&Record) -> Option<&str>| array(stored, |row| field(&row.record));
    let id = |field: fn(&Record) -> Option<Uuid>| {
        array(stored, |row| field(&row.record).map(pgrx::Uuid::from_bytes))
    };
    let parameters = [
        array(stored, |row| Some(row.id)),
        array(stored, |row| TimestampWithTimeZone::try_from(row.record.time).ok()),
        text(|record| Some(&record.action)),
        text(|record| Some(record.outcome.as_str())),
        text(|record| record.sqlstate.as_deref()),
        id(|record| record.project_id),
        id(|record| record.secret_id),
        text(|record| record.name.as_deref()),
        array(stored, |row| row.record.version),
        array(stored, |row| row.record.kek_id),
        text(|record| record.purpose.as_deref()),
        text(|record| record.detail.as_deref()),
        text(|record| Some(&record.actor)),
        text(|record| record.actor_role.as_deref()),
        text(|record| record.claimed_sub.as_deref()),
        text(|record| record.claimed_role.as_deref()),
        text(|record| record.client_address.as_deref()),
        text(|record| record.application_name.as_deref()),
        text(|record| record.request_id.as_deref()),
        array(stored, |row| row.record.transaction_id),
        array(stored, |row| Some(row.record.times)),
    ];
    let _owner = Acting::as_owner()?;
    let inserted = change(|| INSERT.execute(May::Write, &parameters))?;
    if inserted == stored.len() { Ok(()) } else { Err(Error::corrupted()) }
}

/// What is looked for in the log.
pub struct Filter<'a> {
    /// Only of these projects.
    pub projects: Option<Vec<pgrx::Uuid>>,
    pub since: Option<Timestamp>,
    pub until: Option<Timestamp>,
    pub action: Option<&'a str>,
    pub outcome: Option<&'a str>,
    pub actor: Option<&'a str>,
    pub name: Option<&'a str>,
    pub after: Option<i64>,
    pub page_size: i64,
}

/// A page of the log, newest first; the columns are those of the table.
pub fn search<T>(filter: &Filter<'_>, read: impl FnOnce(&Found) -> Result<T>) -> Result<T> {
    // Planned for these very filters.
    let search = MadeStatement::new(
        concat!(
            "SELECT ",
            columns!(),
            " FROM meshhook_secrets.audit_log l WHERE ($1 IS NULL OR l.project_id OPERATOR(pg_catalog.=) ANY ($1)) AND ($2 IS NULL OR l.\"time\" OPERATOR(pg_catalog.>=) $2) AND ($3 IS NULL OR l.\"time\" OPERATOR(pg_catalog.<) $3) AND ($4 IS NULL OR l.action OPERATOR(pg_catalog.=) $4) AND ($5 IS NULL OR l.outcome OPERATOR(pg_catalog.=) $5) AND ($6 IS NULL OR l.actor OPERATOR(pg_catalog.=) $6 OR l.actor_role OPERATOR(pg_catalog.=) $6 OR l.claimed_sub OPERATOR(pg_catalog.=) $6) AND ($7 IS NULL OR l.name OPERATOR(pg_catalog.=) $7) AND ($8 IS NULL OR l.id OPERATOR(pg_catalog.<) $8) ORDER BY l.id USING OPERATOR(pg_catalog.>) LIMIT $9"
        )
        .to_owned(),
        &[
            UUIDARRAYOID,
            TIMESTAMPTZOID,
            TIMESTAMPTZOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            TEXTOID,
            INT8OID,
            INT8OID,
        ],
    )?;
    let _owner = Acting::as_owner()?;
    let parameters = [
        filter.projects.clone().and_then(parameter),
        filter.since.map(Datum::from),
        filter.until.map(Datum::from),
        filter.action.and_then(parameter),
        filter.outcome.and_then(parameter),
        filter.actor.and_then(parameter),
        filter.name.and_then(parameter),
        filter.after.and_then(parameter),
        parameter(filter.page_size),
    ];
    search.run(May::Read, &parameters, read)
}

/// A record of the log as it is found there; `None` if what is there can be no record.
pub struct Read {
    pub id: i64,
    pub record: Option<Record>,
}

/// Up to `limit` records after `after` and up to `last`, oldest first, as the statement sees them.
pub fn after(after: i64, last: i64, limit: i64) -> Result<Vec<Read>> {
    static LIST: Statement = Statement::new(
        sql!(
            "SELECT ",
            columns!(),
            " FROM meshhook_secrets.audit_log l WHERE l.id OPERATOR(pg_catalog.>) $1 AND l.id OPERATOR(pg_catalog.<=) $2 ORDER BY l.id USING OPERATOR(pg_catalog.<) LIMIT $3"
        ),
        &[INT8OID, INT8OID, INT8OID],
    );
    let _owner = Acting::as_owner()?;
    LIST.run(May::Read, &[parameter(after), parameter(last), parameter(limit)], |found| {
        let read = |row| Ok(Read { id: required(found, row, 1)?, record: record(found, row) });
        (0..found.count()).map(read).collect()
    })
}

fn record(found: &Found, row: usize) -> Option<Record> {
    let text = |column| found.get::<String>(row, column);
    let id = |column| found.get::<pgrx::Uuid>(row, column).map(|id| *id.as_bytes());
    Some(Record {
        time: time(found, row, 2)?,
        action: text(3)?,
        outcome: Outcome::parse(&text(4)?)?,
        sqlstate: text(5),
        project_id: id(6),
        secret_id: id(7),
        name: text(8),
        version: found.get(row, 9),
        kek_id: found.get(row, 10),
        purpose: text(11),
        detail: text(12),
        actor: text(13)?,
        actor_role: text(14),
        claimed_sub: text(15),
        claimed_role: text(16),
        client_address: text(17),
        application_name: text(18),
        request_id: text(19),
        transaction_id: found.get(row, 20),
        times: found.get(row, 21)?,
    })
}
