//! `seal`, `unseal` and what is asked about root keys.

use super::arguments::{optional_project, project, time_datum};
use crate::{
    pg::{
        call::{Answer, Call, datum},
        rows::Rows,
    },
    service::{
        audit::{Kind, recorded},
        sealing,
    },
};
use std::borrow::Cow;

crate::sql_functions! {
    /// `seal(project_id)`
    meshhook_secrets_seal = seal;
    /// `unseal(project_id)`
    meshhook_secrets_unseal = unseal;
    /// `seal_status()`
    meshhook_secrets_seal_status = seal_status;
    /// `project_seal_status(project_id)`
    meshhook_secrets_project_seal_status = project_seal_status;
    /// `root_key_status()`
    meshhook_secrets_root_key_status = root_key_status;
}

fn seal(call: Call) -> Answer {
    recorded(kind(&call), "seal", |event| {
        let project = optional_project(&call);
        if let Some(project) = &project {
            event.project(project);
        }
        sealing::seal(project.as_ref())?;
        Ok(None)
    })
}

fn unseal(call: Call) -> Answer {
    recorded(kind(&call), "unseal", |event| {
        let project = optional_project(&call);
        if let Some(project) = &project {
            event.project(project);
        }
        sealing::unseal(project.as_ref())?;
        Ok(None)
    })
}

/// The server is sealed in memory, a project in the tables.
fn kind(call: &Call) -> Kind {
    if call.raw(0).is_some() { Kind::Change } else { Kind::Control }
}

fn seal_status(call: Call) -> Answer {
    recorded(Kind::Look, "seal_status", |_| {
        let (status, projects) = sealing::status()?;
        let text = |text: String| if text.is_empty() { None } else { datum(text) };
        let mut rows = Rows::begin(&call)?;
        rows.push(&[
            datum(status.sealed),
            text(status.cause),
            text(status.remedy),
            time_datum(status.since),
            datum(status.protection.as_str()),
            datum(projects),
        ])?;
        rows.done()
    })
}

fn project_seal_status(call: Call) -> Answer {
    recorded(Kind::Probe, "project_seal_status", |event| {
        let project = project(&call)?;
        event.project(&project);
        let refusal = sealing::of_project(&project)?;
        let mut rows = Rows::begin(&call)?;
        rows.push(&match refusal {
            None => [datum(false), None, None],
            Some(refusal) => {
                let text =
                    |text: Option<Cow<'static, str>>| text.map(Cow::into_owned).and_then(datum);
                [datum(true), text(refusal.detail), text(refusal.hint)]
            }
        })?;
        rows.done()
    })
}

fn root_key_status(call: Call) -> Answer {
    recorded(Kind::Look, "root_key_status", |_| {
        let keys = sealing::root_keys()?;
        let mut rows = Rows::begin(&call)?;
        for key in keys {
            rows.push(&[
                datum(key.id),
                datum(key.is_current),
                datum(key.is_loaded),
                datum(key.keks),
            ])?;
        }
        rows.done()
    })
}
