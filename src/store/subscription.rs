//! Logical replication into our tables.

use crate::{
    error::Result,
    pg::{
        spi::{May, Statement},
        user::Acting,
    },
};

/// Whether a subscription of this database, enabled or not, keeps keys or secrets.
pub fn keeps_our_tables() -> Result<bool> {
    static FIND: Statement = Statement::new(
        c"SELECT FROM pg_catalog.pg_subscription_rel s WHERE s.srrelid OPERATOR(pg_catalog.=) ANY (ARRAY['meshhook_secrets.kek_storage'::pg_catalog.regclass, 'meshhook_secrets.data_keys'::pg_catalog.regclass, 'meshhook_secrets.project_secrets'::pg_catalog.regclass, 'meshhook_secrets.secret_versions'::pg_catalog.regclass]::pg_catalog.oid[]) LIMIT 1",
        &[],
    );
    let _owner = Acting::as_owner()?;
    FIND.run(May::Read, &[], |found| Ok(found.count() > 0))
}
