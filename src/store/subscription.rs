//! Logical replication into our tables.

use crate::{
    error::Result,
    pg::{
        spi::{May, Statement},
        user::Acting,
    },
};

/// Whether a subscription of this database, enabled or not, keeps keys or secrets. One whose owner may not write
/// to them (since 16, subscriptions are not only for superusers) never brings anything.
pub fn keeps_our_tables() -> Result<bool> {
    static FIND: Statement = Statement::new(
        c"SELECT FROM pg_catalog.pg_subscription_rel s JOIN pg_catalog.pg_subscription o ON o.oid OPERATOR(pg_catalog.=) s.srsubid WHERE pg_catalog.has_table_privilege(o.subowner, s.srrelid, 'INSERT') AND s.srrelid OPERATOR(pg_catalog.=) ANY (ARRAY['meshhook_secrets.kek_storage'::pg_catalog.regclass, 'meshhook_secrets.data_keys'::pg_catalog.regclass, 'meshhook_secrets.project_secrets'::pg_catalog.regclass, 'meshhook_secrets.secret_versions'::pg_catalog.regclass]::pg_catalog.oid[]) LIMIT 1",
        &[],
    );
    let _owner = Acting::as_owner()?;
    FIND.run(May::Read, &[], |found| Ok(found.count() > 0))
}
