//! `kek_rotate` and its kin.

use super::arguments::{from_now, project, time_datum};
use crate::{
    error::{Error, Result},
    pg::{
        call::{Answer, Call, datum},
        raise,
        rows::Rows,
    },
    service::{
        access,
        audit::{Event, Kind, recorded},
        kek_life, kek_status, reencrypt, root_keys, rotation, verify,
    },
};
use meshhook_secrets_core::kek_status::KekStatus;
use pgrx::datum::Interval;

crate::sql_functions! {
    /// `kek_generate()`
    meshhook_secrets_kek_generate = generate;
    /// `kek_rotate(reason)`
    meshhook_secrets_kek_rotate = rotate;
    /// `kek_rewrap(batch_size)`
    meshhook_secrets_kek_rewrap = rewrap;
    /// `kek_status()`
    meshhook_secrets_kek_status = status;
    /// `kek_verify(kek_id, deep)`
    meshhook_secrets_kek_verify = verify_keks;
    /// `kek_disable(kek_id)`
    meshhook_secrets_kek_disable = disable;
    /// `kek_enable(kek_id)`
    meshhook_secrets_kek_enable = enable;
    /// `kek_mark_compromised(kek_id)`
    meshhook_secrets_kek_mark_compromised = mark_compromised;
    /// `kek_destroy(kek_id, confirm, wait)`
    meshhook_secrets_kek_destroy = destroy;
    /// `kek_cancel_destroy(kek_id)`
    meshhook_secrets_kek_cancel_destroy = cancel_destroy;
    /// `kek_configure(auto_rotate_period)`
    meshhook_secrets_kek_configure = configure;
    /// `dek_rotate(project_id)`
    meshhook_secrets_dek_rotate = dek_rotate;
    /// `secret_reencrypt(project_id)`
    meshhook_secrets_secret_reencrypt = secret_reencrypt;
    /// `root_key_rotate()`
    meshhook_secrets_root_key_rotate = root_key_rotate;
    /// `root_key_verify()`
    meshhook_secrets_root_key_verify = root_key_verify;
}

fn generate(_call: Call) -> Answer {
    recorded(Kind::Change, "kek_generate", |event| {
        let kek_id = rotation::generate()?;
        event.kek(kek_id);
        Ok(datum(kek_id))
    })
}

fn rotate(call: Call) -> Answer {
    recorded(Kind::Change, "kek_rotate", |event| {
        let reason: Option<String> = call.optional(0);
        if reason.as_ref().is_some_and(|reason| reason.chars().count() > 500) {
            return Err(
                Error::invalid("reason has more than 500 characters.").hint("Give a sentence.")
            );
        }
        reason.iter().for_each(|reason| event.detail(reason.as_str()));
        let rotation::Rotation { job, remaining } = rotation::rotate(reason, access::author())?;
        event.kek(job.kek_id);
        call.record(&[
            datum(job.job_id),
            datum(job.kek_id),
            datum(job.reason),
            datum(job.total),
            datum(remaining),
            time_datum(job.started_at),
            datum(job.started_by),
            job.finished_at.and_then(time_datum),
            datum(job.last_error),
        ])
    })
}

fn rewrap(call: Call) -> Answer {
    recorded(Kind::Change, "kek_rewrap", |event| {
        let limit: i32 = call.required(0, "batch_size")?;
        if !(1..=100_000).contains(&limit) {
            return Err(Error::invalid("batch_size is not between 1 and 100000.")
                .hint("Call the function again for the next batch."));
        }
        let batch = rotation::rewrap(i64::from(limit), &mut rotation::Position::default())?;
        let remaining = match batch.remaining {
            Some(remaining) => remaining,
            None => rotation::remaining_now()?,
        };
        if batch.remaining.is_none() && remaining == 0 {
            // The batch was full, and it was the last one: another look finishes the rotation.
            rotation::rewrap(1, &mut rotation::Position::default())?;
        }
        event.detail(format!("{} rewrapped, {remaining} remaining", batch.rewrapped));
        raise::log(
            pgrx::PgLogLevel::NOTICE,
            &format!("{} data keys rewrapped, {remaining} remaining", batch.rewrapped),
            None,
        );
        let mut rows = Rows::begin(&call)?;
        rows.push(&[datum(batch.rewrapped), datum(batch.failed), datum(remaining)])?;
        rows.done()
    })
}

fn status(call: Call) -> Answer {
    recorded(Kind::Look, "kek_status", |_| {
        let keks = kek_status::all()?;
        let mut rows = Rows::begin(&call)?;
        for kek in keks {
            let progress = kek.progress;
            rows.push(&[
                datum(kek.stored.kek_id),
                datum(kek.stored.status),
                datum(kek.stored.root_key_id),
                datum(kek.wraps),
                time_datum(kek.stored.created_at),
                kek.stored.rotated_at.and_then(time_datum),
                kek.stored.retired_at.and_then(time_datum),
                kek.stored.destroy_after.and_then(time_datum),
                kek.stored.destroyed_at.and_then(time_datum),
                kek.next_rotation.and_then(time_datum),
                progress.as_ref().and_then(|progress| datum(progress.remaining)),
                progress.as_ref().and_then(|progress| datum(progress.done)),
                progress.as_ref().and_then(|progress| datum(progress.per_second)),
                progress.as_ref().and_then(|progress| progress.estimated_end).and_then(time_datum),
                progress.and_then(|progress| datum(progress.last_error)),
            ])?;
        }
        rows.done()
    })
}

fn verify_keks(call: Call) -> Answer {
    recorded(Kind::Look, "kek_verify", |event| {
        let wanted = call.optional(0);
        wanted.iter().for_each(|kek_id| event.kek(*kek_id));
        let verified = verify::keks(wanted, call.required(1, "deep")?)?;
        let mut rows = Rows::begin(&call)?;
        for kek in verified {
            rows.push(&[
                datum(kek.kek_id),
                datum(kek.status),
                datum(kek.wraps),
                datum(kek.good),
                datum(kek.bad),
                datum(kek.problem),
            ])?;
        }
        rows.done()
    })
}

fn disable(call: Call) -> Answer {
    recorded(Kind::Change, "kek_disable", |event| {
        new_status(kek_life::disable(kek_id(&call, event)?)?)
    })
}

fn enable(call: Call) -> Answer {
    recorded(Kind::Change, "kek_enable", |event| {
        new_status(kek_life::enable(kek_id(&call, event)?)?)
    })
}

fn mark_compromised(call: Call) -> Answer {
    recorded(Kind::Change, "kek_mark_compromised", |event| {
        new_status(kek_life::mark_compromised(kek_id(&call, event)?)?)
    })
}

fn destroy(call: Call) -> Answer {
    recorded(Kind::Change, "kek_destroy", |event| {
        let confirm: String = call.required(1, "confirm")?;
        let at = from_now(&call, 2, "wait")?.ok_or_else(|| Error::null_argument("wait"))?;
        Ok(time_datum(kek_life::destroy(kek_id(&call, event)?, &confirm, at)?))
    })
}

fn cancel_destroy(call: Call) -> Answer {
    recorded(Kind::Change, "kek_cancel_destroy", |event| {
        new_status(kek_life::cancel_destroy(kek_id(&call, event)?)?)
    })
}

fn configure(call: Call) -> Answer {
    recorded(Kind::Change, "kek_configure", |_| {
        let period = call.optional::<Interval>(0).map(|period| {
            let days = i64::from(period.months()) * 30 + i64::from(period.days());
            days.saturating_mul(86_400_000_000).saturating_add(period.micros())
        });
        kek_life::configure(period)?;
        Ok(None)
    })
}

fn dek_rotate(call: Call) -> Answer {
    recorded(Kind::Change, "dek_rotate", |event| {
        let project = project(&call)?;
        event.project(&project);
        Ok(datum(reencrypt::rotate_dek(&project)?))
    })
}

fn secret_reencrypt(call: Call) -> Answer {
    recorded(Kind::Change, "secret_reencrypt", |event| {
        let project = project(&call)?;
        event.project(&project);
        Ok(datum(reencrypt::project(&project)?))
    })
}

fn root_key_rotate(call: Call) -> Answer {
    recorded(Kind::Change, "root_key_rotate", |_| {
        let moved = root_keys::rotate()?;
        let mut rows = Rows::begin(&call)?;
        for kek in moved {
            rows.push(&[datum(kek.kek_id), datum(kek.former_root_key_id), datum(kek.root_key_id)])?;
        }
        rows.done()
    })
}

fn root_key_verify(call: Call) -> Answer {
    recorded(Kind::Look, "root_key_verify", |_| {
        let verified = root_keys::verify()?;
        let mut rows = Rows::begin(&call)?;
        for key in verified {
            rows.push(&[
                datum(key.root_key_id),
                datum(key.keks),
                datum(key.good),
                datum(key.problem),
            ])?;
        }
        rows.done()
    })
}

fn kek_id(call: &Call, event: &mut Event) -> Result<i32> {
    let kek_id = call.required(0, "kek_id")?;
    event.kek(kek_id);
    Ok(kek_id)
}

fn new_status(status: KekStatus) -> Answer {
    Ok(datum(status.as_str()))
}
