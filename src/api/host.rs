//! What policies and triggers call.

use crate::{
    pg::{
        call::{Answer, Call, datum},
        trigger::{Event, Trigger},
    },
    service::{access, audit, host, rotation},
};

crate::sql_functions! {
    /// `member_projects()`, asked by the row-level security policies
    meshhook_secrets_member_projects = member_projects;
    /// `refuse_direct_change()`, trigger on our tables
    meshhook_secrets_refuse_direct_change = refuse_direct_change;
    /// `host_project_changed(id_column)`, trigger on the host's projects table
    meshhook_secrets_host_project_changed = host_project_changed;
}

fn member_projects(_call: Call) -> Answer {
    Ok(datum(access::member_projects()?))
}

fn refuse_direct_change(call: Call) -> Answer {
    let trigger = Trigger::of(&call)?;
    access::require_own_change().inspect_err(|error| {
        audit::refused("direct_change", &error.sqlstate());
    })?;
    rotation::look_again()?;
    Ok(Some(trigger.unchanged()))
}

fn host_project_changed(call: Call) -> Answer {
    let trigger = Trigger::of(&call)?;
    match trigger.event() {
        Event::Truncate => host::projects_truncated()?,
        Event::Delete if trigger.in_partition() => {
            host::project_left_partition(&trigger.old_uuid()?)?;
        }
        Event::Delete => host::project_deleted(&trigger.old_uuid()?)?,
        Event::Update => {
            let before = trigger.old_uuid()?;
            if before != trigger.new_uuid()? {
                host::project_renamed(&before)?;
            }
        }
        Event::Insert => {}
    }
    Ok(Some(trigger.unchanged()))
}
