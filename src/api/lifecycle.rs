//! `secret_delete` and its kin.

use super::{
    arguments::{name, project, time},
    browse::info,
};
use crate::{
    pg::{
        call::{Answer, Call},
        spi::May,
    },
    service::lifecycle,
};

crate::sql_functions! {
    /// `secret_delete(project_id, name)`
    meshhook_secrets_secret_delete = delete;
    /// `secret_undelete(project_id, name)`
    meshhook_secrets_secret_undelete = undelete;
    /// `secret_purge(project_id, name, confirm)`
    meshhook_secrets_secret_purge = purge;
    /// `secret_expire(project_id, name, expires_at)`
    meshhook_secrets_secret_expire = expire;
}

fn delete(call: Call) -> Answer {
    lifecycle::delete(&project(&call)?, &name(&call)?)?;
    info(&call, May::Write)
}

fn undelete(call: Call) -> Answer {
    lifecycle::undelete(&project(&call)?, &name(&call)?)?;
    info(&call, May::Write)
}

fn purge(call: Call) -> Answer {
    let confirm: String = call.required(2, "confirm")?;
    lifecycle::purge(&project(&call)?, &name(&call)?, &confirm)?;
    Ok(None)
}

fn expire(call: Call) -> Answer {
    lifecycle::expire(&project(&call)?, &name(&call)?, time(&call, 2))?;
    info(&call, May::Write)
}
