//! The months of `audit_log`.

use super::{required, time};
use crate::{
    error::{Error, Result},
    pg::{
        scan, server,
        spi::{MadeStatement, May, Statement},
        user::Acting,
    },
    store::{Timestamp, guard::change},
};
use pgrx::pg_sys::{self, Datum, TIMESTAMPTZOID};

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
    let started = server::uptime();
    let tables = std::iter::once(scan::relation_id("audit_log")?)
        .chain(partitions(before)?.into_iter().map(|partition| partition.oid));
    for table in tables {
        while !scan::seize(table) {
            if server::uptime() - started > PATIENCE {
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
