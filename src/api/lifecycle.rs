//! `secret_delete` and its kin.

use super::{
    arguments::{project_and_name, time},
    browse::info,
};
use crate::{
    pg::{
        call::{Answer, Call},
        server,
        spi::May,
    },
    service::{
        audit::{Kind, recorded},
        lifecycle,
    },
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
    recorded(Kind::Change, "secret_delete", |event| {
        let (project, name) = project_and_name(&call, event)?;
        lifecycle::delete(&project, &name, event)?;
        info(&call, &project, &name, May::Write)
    })
}

fn undelete(call: Call) -> Answer {
    recorded(Kind::Change, "secret_undelete", |event| {
        let (project, name) = project_and_name(&call, event)?;
        lifecycle::undelete(&project, &name, event)?;
        info(&call, &project, &name, May::Write)
    })
}

fn purge(call: Call) -> Answer {
    recorded(Kind::Change, "secret_purge", |event| {
        let (project, name) = project_and_name(&call, event)?;
        let confirm: String = call.required(2, "confirm")?;
        lifecycle::purge(&project, &name, &confirm, event)?;
        Ok(None)
    })
}

fn expire(call: Call) -> Answer {
    recorded(Kind::Change, "secret_expire", |event| {
        let (project, name) = project_and_name(&call, event)?;
        let at = time(&call, 2);
        event.detail(at.map_or_else(|| String::from("never"), server::iso));
        lifecycle::expire(&project, &name, at, event)?;
        info(&call, &project, &name, May::Write)
    })
}
