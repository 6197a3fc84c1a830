//! What can be called, how it is called, and what an answer looks like.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use postgres::types::{Json, ToSql};
use postgres::{GenericClient, Row};
use uuid::Uuid;

use crate::model::Micros;

/// A call of one of the functions. Times are absolute, so that a call is the same however often it is made.
#[derive(Clone, Debug)]
pub enum Op {
    Put { at: Place, value: Bytes, bytes: bool, options: Options },
    Generate { at: Place, length: i32, options: Options },
    Rollback { at: Place, version: i32, cas: Option<i32> },
    Get { at: Place, version: Option<i32>, bytes: bool, purpose: Option<&'static str> },
    GetMany { project: Uuid, names: Option<Vec<String>> },
    List { project: Uuid, include_deleted: bool, after: Option<String>, page_size: i32 },
    Describe { at: Place },
    Versions { at: Place },
    Due { project: Option<Uuid>, within: Micros },
    Delete { at: Place },
    Undelete { at: Place },
    Purge { at: Place, confirm: String },
    Expire { at: Place, expires_at: Option<Micros> },
    ProjectSealStatus { project: Uuid },
    KekGenerate,
    KekRotate,
    KekRewrap { batch: i32 },
    KekStatus,
    KekVerify { deep: bool },
    KekStep { step: Step, kek: i32 },
    KekDestroy { kek: i32, confirm: String, wait: Micros },
    KekConfigure { days: Option<i32> },
    DekRotate { project: Uuid },
    Reencrypt { project: Uuid },
    RootKeyRotate,
    RootKeyVerify,
    RootKeyStatus,
    SealStatus,
    Seal { project: Option<Uuid> },
    Unseal { project: Option<Uuid> },
    AuditSearch { project: Option<Uuid> },
    AuditVerify,
    AuditPrune,
    Health,
    Metrics,
    Doctor,
}

/// A value to be stored.
#[derive(Clone)]
pub struct Bytes(pub Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Where a secret is.
#[derive(Clone, Debug)]
pub struct Place {
    pub project: Uuid,
    pub name: String,
}

#[derive(Clone, Debug, Default)]
pub struct Options {
    pub cas: Option<i32>,
    pub description: Option<String>,
    pub expires_at: Option<Micros>,
    pub metadata: Option<serde_json::Value>,
    pub previous_valid_for: Option<Micros>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Disable,
    Enable,
    MarkCompromised,
    CancelDestroy,
}

/// `secret_info`.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    pub id: Uuid,
    pub name: String,
    pub description: Option<String>,
    pub metadata: Option<serde_json::Value>,
    pub current_version: i32,
    pub status: String,
    pub created_at: Micros,
    pub updated_at: Micros,
    pub created_by: String,
    pub expires_at: Option<Micros>,
    pub deleted_at: Option<Micros>,
    pub purge_after: Option<Micros>,
}

/// A row of `secret_versions`.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub version: i32,
    pub status: String,
    pub is_current: bool,
    pub created_at: Micros,
    pub created_by: String,
    pub expires_at: Option<Micros>,
}

/// A secret as it was found in the database.
#[derive(Clone, Debug)]
pub struct Actual {
    pub info: Info,
    pub versions: Vec<Stored>,
    /// Those that can be read.
    pub values: BTreeMap<i32, Vec<u8>>,
}

/// What came back.
#[derive(Clone, Debug)]
pub enum Answer {
    Written {
        id: Uuid,
        name: String,
        version: i32,
        created_at: Micros,
        expires_at: Option<Micros>,
    },
    Value(Vec<u8>),
    /// name, value, version, status
    Items(Vec<(String, Option<String>, Option<i32>, String)>),
    Infos(Vec<Info>),
    Versions(Vec<Stored>),
    /// project, name, version, expiry, status
    Due(Vec<(Uuid, String, i32, Micros, String)>),
    Nothing,
    Rows(Vec<Row>),
}

type Parameter<'a> = &'a (dyn ToSql + Sync);

impl Op {
    /// The function's name.
    pub fn action(&self) -> &'static str {
        match self {
            Op::Put { bytes: false, .. } => "secret_put",
            Op::Put { bytes: true, .. } => "secret_put_bytes",
            Op::Generate { .. } => "secret_generate",
            Op::Rollback { .. } => "secret_rollback",
            Op::Get { bytes: false, .. } => "secret_get",
            Op::Get { bytes: true, .. } => "secret_get_bytes",
            Op::GetMany { .. } => "secret_get_many",
            Op::List { .. } => "secret_list",
            Op::Describe { .. } => "secret_describe",
            Op::Versions { .. } => "secret_versions",
            Op::Due { .. } => "secret_due",
            Op::Delete { .. } => "secret_delete",
            Op::Undelete { .. } => "secret_undelete",
            Op::Purge { .. } => "secret_purge",
            Op::Expire { .. } => "secret_expire",
            Op::ProjectSealStatus { .. } => "project_seal_status",
            Op::KekGenerate => "kek_generate",
            Op::KekRotate => "kek_rotate",
            Op::KekRewrap { .. } => "kek_rewrap",
            Op::KekStatus => "kek_status",
            Op::KekVerify { .. } => "kek_verify",
            Op::KekStep { step: Step::Disable, .. } => "kek_disable",
            Op::KekStep { step: Step::Enable, .. } => "kek_enable",
            Op::KekStep { step: Step::MarkCompromised, .. } => "kek_mark_compromised",
            Op::KekStep { step: Step::CancelDestroy, .. } => "kek_cancel_destroy",
            Op::KekDestroy { .. } => "kek_destroy",
            Op::KekConfigure { .. } => "kek_configure",
            Op::DekRotate { .. } => "dek_rotate",
            Op::Reencrypt { .. } => "secret_reencrypt",
            Op::RootKeyRotate => "root_key_rotate",
            Op::RootKeyVerify => "root_key_verify",
            Op::RootKeyStatus => "root_key_status",
            Op::SealStatus => "seal_status",
            Op::Seal { .. } => "seal",
            Op::Unseal { .. } => "unseal",
            Op::AuditSearch { .. } => "audit_search",
            Op::AuditVerify => "audit_verify",
            Op::AuditPrune => "audit_prune",
            Op::Health => "health",
            Op::Metrics => "metrics",
            Op::Doctor => "doctor",
        }
    }

    /// The secret that it is about.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Op::Put { at, .. }
            | Op::Generate { at, .. }
            | Op::Rollback { at, .. }
            | Op::Get { at, .. }
            | Op::Describe { at }
            | Op::Versions { at }
            | Op::Delete { at }
            | Op::Undelete { at }
            | Op::Purge { at, .. }
            | Op::Expire { at, .. } => Some(at),
            _ => None,
        }
    }

    /// The project that it is about.
    pub fn project(&self) -> Option<Uuid> {
        match self {
            Op::GetMany { project, .. }
            | Op::List { project, .. }
            | Op::ProjectSealStatus { project }
            | Op::DekRotate { project }
            | Op::Reencrypt { project } => Some(*project),
            Op::Due { project, .. }
            | Op::Seal { project }
            | Op::Unseal { project }
            | Op::AuditSearch { project } => *project,
            _ => self.place().map(|place| place.project),
        }
    }

    /// The KEK that it is about.
    pub fn kek(&self) -> Option<i32> {
        match self {
            Op::KekStep { kek, .. } | Op::KekDestroy { kek, .. } => Some(*kek),
            _ => None,
        }
    }

    /// Whether it changes a secret: such calls can be part of a transaction, and be looked at afterwards.
    pub fn changes_secret(&self) -> bool {
        use Op::{Delete, Expire, Generate, Purge, Put, Rollback, Undelete};
        matches!(
            self,
            Put { .. }
                | Generate { .. }
                | Rollback { .. }
                | Delete { .. }
                | Undelete { .. }
                | Purge { .. }
                | Expire { .. }
        )
    }

    /// Whether it changes tables, and hence may meet others' locks.
    pub fn changes(&self) -> bool {
        use Op::{
            AuditPrune, DekRotate, KekConfigure, KekDestroy, KekGenerate, KekRewrap, KekRotate,
            KekStep, KekVerify, Reencrypt, RootKeyRotate, Seal, Unseal,
        };
        self.changes_secret()
            || matches!(
                self,
                KekGenerate
                    | KekRotate
                    | KekRewrap { .. }
                    | KekStep { .. }
                    | KekDestroy { .. }
                    | KekConfigure { .. }
                    | KekVerify { deep: true }
                    | DekRotate { .. }
                    | Reencrypt { .. }
                    | RootKeyRotate
                    | AuditPrune
                    | Seal { project: Some(_) }
                    | Unseal { project: Some(_) }
            )
    }

    /// Calls it.
    pub fn call(&self, client: &mut impl GenericClient) -> Result<Answer, postgres::Error> {
        let action = self.action();
        let mut all = |arguments: &str, parameters: &[Parameter<'_>]| {
            client
                .query(&format!("SELECT * FROM meshhook_secrets.{action}({arguments})"), parameters)
        };
        Ok(match self {
            Op::Put { at, value, bytes, options } => {
                let text = std::str::from_utf8(&value.0).unwrap_or_default();
                let given: Parameter<'_> = if *bytes { &value.0 } else { &text };
                let (expires, valid) = options.times();
                let metadata = options.metadata.as_ref().map(Json);
                let rows = all(
                    "$1, $2, $3, cas => $4, description => $5, expires_at => $6, metadata => $7,
                     previous_valid_for => $8::float8 * interval '1 second'",
                    &[
                        &at.project,
                        &at.name,
                        given,
                        &options.cas,
                        &options.description,
                        &expires,
                        &metadata,
                        &valid,
                    ],
                )?;
                written(&rows[0])
            }
            Op::Generate { at, length, options } => {
                let (expires, valid) = options.times();
                let metadata = options.metadata.as_ref().map(Json);
                let rows = all(
                    "$1, $2, $3, 'hex', cas => $4, description => $5, expires_at => $6, metadata => $7,
                     previous_valid_for => $8::float8 * interval '1 second'",
                    &[
                        &at.project, &at.name, length, &options.cas, &options.description, &expires,
                        &metadata, &valid,
                    ],
                )?;
                written(&rows[0])
            }
            Op::Rollback { at, version, cas } => {
                written(&all("$1, $2, $3, $4", &[&at.project, &at.name, version, cas])?[0])
            }
            Op::Get { at, version, bytes, purpose } => {
                let rows = all("$1, $2, $3, $4", &[&at.project, &at.name, version, purpose])?;
                Answer::Value(match bytes {
                    true => rows[0].get(0),
                    false => rows[0].get::<_, String>(0).into_bytes(),
                })
            }
            Op::GetMany { project, names } => {
                let rows = all("$1, $2", &[project, names])?;
                let item = |row: &Row| (row.get(0), row.get(1), row.get(2), row.get(3));
                Answer::Items(rows.iter().map(item).collect())
            }
            Op::List { project, include_deleted, after, page_size } => {
                let rows = all(
                    "$1, include_deleted => $2, after => $3, page_size => $4",
                    &[project, include_deleted, after, page_size],
                )?;
                Answer::Infos(rows.iter().map(info).collect())
            }
            Op::Describe { at } | Op::Delete { at } | Op::Undelete { at } => {
                let rows = all("$1, $2", &[&at.project, &at.name])?;
                Answer::Infos(rows.iter().map(info).collect())
            }
            Op::Expire { at, expires_at } => {
                let expires = expires_at.map(time);
                let rows = all("$1, $2, $3", &[&at.project, &at.name, &expires])?;
                Answer::Infos(rows.iter().map(info).collect())
            }
            Op::Versions { at } => {
                let rows = all("$1, $2", &[&at.project, &at.name])?;
                Answer::Versions(rows.iter().map(stored).collect())
            }
            Op::Due { project, within } => {
                let within = *within as f64 / 1e6;
                let rows = all("$1, $2::float8 * interval '1 second'", &[project, &within])?;
                let due = |row: &Row| {
                    (row.get(0), row.get(1), row.get(2), micros(row.get(3)), row.get(4))
                };
                Answer::Due(rows.iter().map(due).collect())
            }
            Op::Purge { at, confirm } => {
                all("$1, $2, $3", &[&at.project, &at.name, confirm])?;
                Answer::Nothing
            }
            Op::ProjectSealStatus { project }
            | Op::DekRotate { project }
            | Op::Reencrypt { project } => Answer::Rows(all("$1", &[project])?),
            Op::KekRewrap { batch } => Answer::Rows(all("$1", &[batch])?),
            Op::KekVerify { deep } => Answer::Rows(all("deep => $1", &[deep])?),
            Op::KekStep { kek, .. } => Answer::Rows(all("$1", &[kek])?),
            Op::KekDestroy { kek, confirm, wait } => {
                let wait = *wait as f64 / 1e6;
                let arguments = "$1, $2, $3::float8 * interval '1 second'";
                Answer::Rows(all(arguments, &[kek, confirm, &wait])?)
            }
            Op::KekConfigure { days } => {
                all("$1::int * interval '1 day'", &[days])?;
                Answer::Nothing
            }
            Op::Seal { project } | Op::Unseal { project } => {
                all("$1", &[project])?;
                Answer::Nothing
            }
            Op::AuditSearch { project } => Answer::Rows(all("$1, page_size => 20", &[project])?),
            Op::AuditPrune => Answer::Rows(all("now() - interval '10 years'", &[])?),
            Op::KekGenerate
            | Op::KekRotate
            | Op::KekStatus
            | Op::RootKeyRotate
            | Op::RootKeyVerify
            | Op::RootKeyStatus
            | Op::SealStatus
            | Op::AuditVerify
            | Op::Health
            | Op::Metrics
            | Op::Doctor => Answer::Rows(all("", &[])?),
        })
    }
}

impl Options {
    fn times(&self) -> (Option<SystemTime>, Option<f64>) {
        (self.expires_at.map(time), self.previous_valid_for.map(|it| it as f64 / 1e6))
    }
}

fn written(row: &Row) -> Answer {
    Answer::Written {
        id: row.get("id"),
        name: row.get("name"),
        version: row.get("version"),
        created_at: micros(row.get("created_at")),
        expires_at: row.get::<_, Option<_>>("expires_at").map(micros),
    }
}

fn info(row: &Row) -> Info {
    let time = |column| row.get::<_, Option<SystemTime>>(column).map(micros);
    Info {
        id: row.get("id"),
        name: row.get("name"),
        description: row.get("description"),
        metadata: row.get("metadata"),
        current_version: row.get("version"),
        status: row.get("status"),
        created_at: micros(row.get("created_at")),
        updated_at: micros(row.get("updated_at")),
        created_by: row.get("created_by"),
        expires_at: time("expires_at"),
        deleted_at: time("deleted_at"),
        purge_after: time("purge_after"),
    }
}

fn stored(row: &Row) -> Stored {
    Stored {
        version: row.get("version"),
        status: row.get("status"),
        is_current: row.get("is_current"),
        created_at: micros(row.get("created_at")),
        created_by: row.get("created_by"),
        expires_at: row.get::<_, Option<_>>("expires_at").map(micros),
    }
}

/// A point in time as drivers have it.
pub fn time(at: Micros) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(at.try_into().expect("after 1970"))
}

/// A point in time as the model has it.
pub fn micros(at: SystemTime) -> Micros {
    at.duration_since(UNIX_EPOCH).expect("after 1970").as_micros() as Micros
}
