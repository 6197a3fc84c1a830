//! What the catalog says about the extension itself.

use crate::{
    error::{Error, Result},
    pg::spi::{May, Statement},
};

/// The version of our SQL in this database.
pub fn version() -> Result<String> {
    static VERSION: Statement = Statement::new(
        c"SELECT e.extversion FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'meshhook_secrets'",
        &[],
    );
    VERSION.run(May::Read, &[], |found| {
        found.get(0, 1).ok_or_else(|| Error::internal("The extension is not installed."))
    })
}
