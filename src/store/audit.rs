//! `audit_log`, `audit_pending`, `audit_seals` and `audit_head`.

use super::{Timestamp, Uuid, guard::change};
use crate::{
    error::{Error, Result},
    pg::{
        scan, server,
        spi::{Found, MadeStatement, May, Parameter, Statement, parameter, uuid},
        user::Acting,
    },
};
use meshhook_secrets_core::audit::{Head, Outcome, Record, Seal};
use pgrx::{
    FromDatum, IntoDatum,
    datum::TimestampWithTimeZone,
    pg_sys::{
        self, BOOLOID, BYTEAOID, Datum, INT4ARRAYOID, INT4OID, INT8ARRAYOID, INT8OID, TEXTARRAYOID,
        TEXTOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZOID, UUIDARRAYOID, UUIDOID,
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

/// A record of the log and its id.
pub struct Stored {
    pub id: i64,
    pub record: Record,
}

// --- Waiting for a seal -------------------------------------------------------------------------------

/// Adds a record in the running transaction; `ring`: where in the ring it came from.
pub fn insert_pending(record: &[u8], ring: Option<(i64, i64)>) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.audit_pending (record, ring_id, ring_position) VALUES ($1, $2, $3)",
        &[BYTEAOID, INT8OID, INT8OID],
    );
    let _owner = Acting::as_owner()?;
    let (id, position) = ring.unzip();
    change(|| {
        INSERT.change_one(&[
            parameter(record),
            id.and_then(parameter),
            position.and_then(parameter),
        ])
    })
}

/// A record that waited for a seal.
pub struct Pending {
    pub record: Vec<u8>,
    /// It came through the ring, while the server was sealed.
    pub from_ring: bool,
}

/// Takes up to `limit` records that wait. Those of open transactions are not seen.
pub fn take_pending(limit: i64) -> Result<Vec<Pending>> {
    static TAKE: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.audit_pending WHERE pending_id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT p.pending_id FROM meshhook_secrets.audit_pending p LIMIT $1)) RETURNING record, ring_id IS NOT NULL",
        &[INT8OID],
    );
    let _owner = Acting::as_owner()?;
    change(|| {
        TAKE.run(May::Write, &[parameter(limit)], |found| {
            let read = |row| {
                let from_ring = required(found, row, 2)?;
                Ok(Pending { record: required(found, row, 1)?, from_ring })
            };
            (0..found.count()).map(read).collect()
        })
    })
}

/// The records that wait, in the state that the statement sees.
pub fn pending() -> Result<Vec<Vec<u8>>> {
    static LIST: Statement =
        Statement::new(c"SELECT record FROM meshhook_secrets.audit_pending LIMIT 10000", &[]);
    let _owner = Acting::as_owner()?;
    LIST.run(May::Read, &[], |found| {
        (0..found.count()).map(|row| required(found, row, 1)).collect()
    })
}

/// How many records wait, as the statement sees it.
pub fn count_pending() -> Result<i64> {
    static COUNT: Statement =
        Statement::new(c"SELECT pg_catalog.count(*) FROM meshhook_secrets.audit_pending", &[]);
    let _owner = Acting::as_owner()?;
    COUNT.run(May::Read, &[], |found| Ok(found.get(0, 1).unwrap_or(0)))
}

/// Whether any records wait, by the latest state.
pub fn has_pending() -> Result<bool> {
    static FOUND: Statement =
        Statement::new(c"SELECT EXISTS (SELECT FROM meshhook_secrets.audit_pending)", &[]);
    let _owner = Acting::as_owner()?;
    FOUND.run(May::Write, &[], |found| Ok(found.get(0, 1).unwrap_or(false)))
}

/// Whether records wait that came through the ring: they could not be sealed.
pub fn is_set_aside() -> Result<bool> {
    static FOUND: Statement = Statement::new(
        c"SELECT EXISTS (SELECT FROM meshhook_secrets.audit_pending WHERE ring_id IS NOT NULL)",
        &[],
    );
    let _owner = Acting::as_owner()?;
    FOUND.run(May::Read, &[], |found| Ok(found.get(0, 1).unwrap_or(false)))
}

/// Up to where the records of a ring are in the tables: as long as it is in use, the last seal is of it.
pub fn ring_position(ring_id: i64) -> Result<i64> {
    static LAST: Statement = Statement::new(
        c"SELECT GREATEST((SELECT s.ring_position FROM (SELECT l.ring_id, l.ring_position FROM meshhook_secrets.audit_seals l ORDER BY l.seal_id USING OPERATOR(pg_catalog.>) LIMIT 1) s WHERE s.ring_id OPERATOR(pg_catalog.=) $1), (SELECT pg_catalog.max(p.ring_position) FROM meshhook_secrets.audit_pending p WHERE p.ring_id OPERATOR(pg_catalog.=) $1))",
        &[INT8OID],
    );
    let _owner = Acting::as_owner()?;
    LAST.run(May::Write, &[parameter(ring_id)], |found| Ok(found.get(0, 1).unwrap_or(0)))
}

// --- The log --------------------------------------------------------------------------------------------

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

/// Makes the partition for the month of a time, if there is none.
pub fn make_partition(at: Timestamp) -> Result<()> {
    static MAKE: Statement =
        Statement::new(c"SELECT meshhook_secrets.audit_make_partition($1)", &[TIMESTAMPTZOID]);
    let _owner = Acting::as_owner()?;
    MAKE.run(May::Write, &[Some(Datum::from(at))], |_| Ok(()))
}

/// The first moment of the month (UTC) of a time, and of the one after it.
pub fn month(at: Timestamp) -> Result<(Timestamp, Timestamp)> {
    static MONTH: Statement = Statement::new(
        c"SELECT pg_catalog.date_trunc('month', $1, 'UTC'), ((pg_catalog.date_trunc('month', $1, 'UTC') AT TIME ZONE 'UTC') OPERATOR(pg_catalog.+) '1 month'::pg_catalog.interval) AT TIME ZONE 'UTC'",
        &[TIMESTAMPTZOID],
    );
    MONTH.run(May::Read, &[Some(Datum::from(at))], |found| {
        let both = time(found, 0, 1).zip(time(found, 0, 2));
        both.ok_or_else(|| Error::internal("A time has no month."))
    })
}

struct Partition {
    name: String,
    qualified: String,
    oid: pg_sys::Oid,
}

/// The partitions that end at `before` or earlier.
fn partitions(before: Timestamp) -> Result<Vec<Partition>> {
    static LIST: Statement = Statement::new(
        c"SELECT c.relname::pg_catalog.text, pg_catalog.format('%I.%I', n.nspname, c.relname), c.oid FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace WHERE i.inhparent OPERATOR(pg_catalog.=) 'meshhook_secrets.audit_log'::pg_catalog.regclass AND c.relname OPERATOR(pg_catalog.~) '^audit_log_[0-9]{4,}_[0-9][0-9]$' AND pg_catalog.to_timestamp(pg_catalog.replace(pg_catalog.substr(c.relname::pg_catalog.text, 11), '_', '-') OPERATOR(pg_catalog.||) '-01 +00', 'YYYY-MM-DD TZH') OPERATOR(pg_catalog.<) $1 ORDER BY 1",
        &[TIMESTAMPTZOID],
    );
    let _owner = Acting::as_owner()?;
    LIST.run(May::Write, &[Some(Datum::from(before))], |found| {
        let read = |row| {
            Ok(Partition {
                name: required(found, row, 1)?,
                qualified: required(found, row, 2)?,
                oid: required(found, row, 3)?,
            })
        };
        (0..found.count()).map(read).collect()
    })
}

/// Keeps everybody from the log and the partitions that end at `before` or earlier, until the transaction
/// ends; PT409 if somebody reads them for longer than a moment. The writer is kept waiting no longer.
pub fn seize_partitions(before: Timestamp) -> Result<()> {
    const PATIENCE: i64 = 2_000_000;
    let started = server::now();
    let tables = std::iter::once(scan::relation_id("audit_log")?)
        .chain(partitions(before)?.into_iter().map(|partition| partition.oid));
    for table in tables {
        while !scan::seize(table) {
            if server::now() - started > PATIENCE {
                return Err(Error::conflict("audit log is being read")
                    .detail(
                        "Another transaction has read what is to be removed, and is still open.",
                    )
                    .hint(
                        "Try again when it has ended; pg_stat_activity shows open transactions.",
                    ));
            }
            server::pause(20);
        }
    }
    Ok(())
}

/// Removes the partitions that end at `before` or earlier, and the records in them.
pub fn drop_partitions(before: Timestamp) -> Result<Vec<(String, i64)>> {
    let _owner = Acting::as_owner()?;
    let mut dropped = Vec::new();
    for Partition { name, qualified, .. } in partitions(before)? {
        let count =
            MadeStatement::new(format!("SELECT pg_catalog.count(*) FROM {qualified}"), &[])?;
        let records = count.run(May::Write, &[], |found| Ok(found.get(0, 1).unwrap_or(0)))?;
        let drop = MadeStatement::new(format!("DROP TABLE {qualified}"), &[])?;
        change(|| drop.run(May::Write, &[], |_| Ok(())))?;
        dropped.push((name, records));
    }
    Ok(dropped)
}

// --- Seals and their head ---------------------------------------------------------------------------------

/// A seal and its MAC.
pub struct StoredSeal {
    pub seal: Seal,
    pub mac: Vec<u8>,
}

/// Adds a seal.
pub fn insert_seal(seal: &Seal, mac: &[u8]) -> Result<()> {
    static INSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.audit_seals (seal_id, previous_id, previous_mac, from_id, records, digest, month, key_version, ring_id, ring_position, sealed_at, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
        &[
            INT8OID,
            INT8OID,
            BYTEAOID,
            INT8OID,
            INT4OID,
            BYTEAOID,
            TIMESTAMPTZOID,
            INT4OID,
            INT8OID,
            INT8OID,
            TIMESTAMPTZOID,
            BYTEAOID,
        ],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [
        parameter(seal.seal_id),
        parameter(seal.previous_id),
        parameter(seal.previous_mac.as_slice()),
        parameter(seal.from_id),
        parameter(seal.records),
        parameter(seal.digest.as_slice()),
        Some(Datum::from(seal.month)),
        parameter(seal.key_version),
        parameter(seal.ring.0),
        parameter(seal.ring.1),
        Some(Datum::from(seal.sealed_at)),
        parameter(mac),
    ];
    change(|| INSERT.change_one(&parameters))
}

/// Up to `limit` seals from `from` on and up to `to`, oldest first, as the statement sees them.
pub fn seals(from: i64, to: i64, limit: i64) -> Result<Vec<StoredSeal>> {
    static LIST: Statement = Statement::new(
        c"SELECT seal_id, previous_id, previous_mac, from_id, records, digest, month, key_version, ring_id, ring_position, sealed_at, mac FROM meshhook_secrets.audit_seals WHERE seal_id OPERATOR(pg_catalog.>=) $1 AND seal_id OPERATOR(pg_catalog.<=) $2 ORDER BY seal_id USING OPERATOR(pg_catalog.<) LIMIT $3",
        &[INT8OID, INT8OID, INT8OID],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [parameter(from), parameter(to), parameter(limit)];
    LIST.run(May::Read, &parameters, |found| {
        (0..found.count()).map(|row| seal(found, row)).collect()
    })
}

/// The last seal, by the latest state.
pub fn last_seal() -> Result<Option<StoredSeal>> {
    static LAST: Statement = Statement::new(
        c"SELECT seal_id, previous_id, previous_mac, from_id, records, digest, month, key_version, ring_id, ring_position, sealed_at, mac FROM meshhook_secrets.audit_seals ORDER BY seal_id USING OPERATOR(pg_catalog.>) LIMIT 1",
        &[],
    );
    let _owner = Acting::as_owner()?;
    LAST.run(May::Write, &[], |found| match found.count() {
        0 => Ok(None),
        _ => seal(found, 0).map(Some),
    })
}

/// Removes the seals up to this one.
pub fn delete_seals(to: i64) -> Result<()> {
    static DELETE: Statement = Statement::new(
        c"DELETE FROM meshhook_secrets.audit_seals WHERE seal_id OPERATOR(pg_catalog.<=) $1",
        &[INT8OID],
    );
    let _owner = Acting::as_owner()?;
    change(|| DELETE.run(May::Write, &[parameter(to)], |_| Ok(())))
}

/// The last seal of the unbroken row of seals, from the oldest on, whose months end by `before`.
pub fn last_seal_before(before: Timestamp) -> Result<Option<StoredSeal>> {
    static LAST: Statement = Statement::new(
        c"SELECT seal_id, previous_id, previous_mac, from_id, records, digest, month, key_version, ring_id, ring_position, sealed_at, mac FROM meshhook_secrets.audit_seals WHERE seal_id OPERATOR(pg_catalog.<) COALESCE((SELECT pg_catalog.min(s.seal_id) FROM meshhook_secrets.audit_seals s WHERE s.month OPERATOR(pg_catalog.>=) $1), 9223372036854775807) ORDER BY seal_id USING OPERATOR(pg_catalog.>) LIMIT 1",
        &[TIMESTAMPTZOID],
    );
    let _owner = Acting::as_owner()?;
    LAST.run(May::Write, &[Some(Datum::from(before))], |found| match found.count() {
        0 => Ok(None),
        _ => seal(found, 0).map(Some),
    })
}

fn seal(found: &Found, row: usize) -> Result<StoredSeal> {
    Ok(StoredSeal {
        seal: Seal {
            seal_id: required(found, row, 1)?,
            previous_id: required(found, row, 2)?,
            previous_mac: hash(found, row, 3),
            from_id: required(found, row, 4)?,
            records: required(found, row, 5)?,
            digest: hash(found, row, 6),
            month: time(found, row, 7).ok_or_else(Error::corrupted)?,
            key_version: required(found, row, 8)?,
            ring: (required(found, row, 9)?, required(found, row, 10)?),
            sealed_at: time(found, row, 11).ok_or_else(Error::corrupted)?,
        },
        mac: required(found, row, 12)?,
    })
}

/// The head and its MAC; `lock`: the latest one, which nobody else changes until the transaction ends.
pub fn head(lock: bool) -> Result<Option<(Head, Vec<u8>)>> {
    static LOCK: Statement = Statement::new(
        c"SELECT seal_id, seal_mac, anchor_id, anchor_mac, pruned_before, pruned_seal, server_event, key_version, mac FROM meshhook_secrets.audit_head FOR UPDATE",
        &[],
    );
    static READ: Statement = Statement::new(
        c"SELECT seal_id, seal_mac, anchor_id, anchor_mac, pruned_before, pruned_seal, server_event, key_version, mac FROM meshhook_secrets.audit_head",
        &[],
    );
    let _owner = Acting::as_owner()?;
    let (statement, may) = if lock { (&LOCK, May::Write) } else { (&READ, May::Read) };
    statement.run(may, &[], |found| {
        if found.count() == 0 {
            return Ok(None);
        }
        let head = Head {
            seal_id: required(found, 0, 1)?,
            seal_mac: hash(found, 0, 2),
            anchor_id: required(found, 0, 3)?,
            anchor_mac: hash(found, 0, 4),
            pruned_before: time(found, 0, 5),
            pruned_seal: required(found, 0, 6)?,
            server_event: time(found, 0, 7),
            key_version: required(found, 0, 8)?,
        };
        Ok(Some((head, required(found, 0, 9)?)))
    })
}

/// Writes the head.
pub fn set_head(head: &Head, mac: &[u8]) -> Result<()> {
    static UPSERT: Statement = Statement::new(
        c"INSERT INTO meshhook_secrets.audit_head (one, seal_id, seal_mac, anchor_id, anchor_mac, pruned_before, pruned_seal, server_event, key_version, mac) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT (one) DO UPDATE SET seal_id = excluded.seal_id, seal_mac = excluded.seal_mac, anchor_id = excluded.anchor_id, anchor_mac = excluded.anchor_mac, pruned_before = excluded.pruned_before, pruned_seal = excluded.pruned_seal, server_event = excluded.server_event, key_version = excluded.key_version, mac = excluded.mac",
        &[
            BOOLOID,
            INT8OID,
            BYTEAOID,
            INT8OID,
            BYTEAOID,
            TIMESTAMPTZOID,
            INT8OID,
            TIMESTAMPTZOID,
            INT4OID,
            BYTEAOID,
        ],
    );
    let _owner = Acting::as_owner()?;
    let parameters = [
        parameter(true),
        parameter(head.seal_id),
        parameter(head.seal_mac.as_slice()),
        parameter(head.anchor_id),
        parameter(head.anchor_mac.as_slice()),
        head.pruned_before.map(Datum::from),
        parameter(head.pruned_seal),
        head.server_event.map(Datum::from),
        parameter(head.key_version),
        parameter(mac),
    ];
    change(|| UPSERT.change_one(&parameters))
}

fn required<T: FromDatum>(found: &Found, row: usize, column: i32) -> Result<T> {
    found.get(row, column).ok_or_else(Error::corrupted)
}

fn time(found: &Found, row: usize, column: i32) -> Option<Timestamp> {
    found.get::<TimestampWithTimeZone>(row, column).map(i64::from)
}

/// 32 bytes; if there are more or fewer, others that authenticate nothing.
fn hash(found: &Found, row: usize, column: i32) -> [u8; 32] {
    found.get::<Vec<u8>>(row, column).unwrap_or_default().try_into().unwrap_or([0xff; 32])
}
