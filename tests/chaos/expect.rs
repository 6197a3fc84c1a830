//! What a call must answer, and what it changes: the contract, written down once more.

use uuid::Uuid;

use crate::callers::Caller;
use crate::model::{
    Effect, Kek, Micros, RECOVERY_WINDOW, Root, Secret, State, Value, Version, When,
};
use crate::operations::{Answer, Op, Options, Place, Step};

/// Longest value, as the setting is by default.
const MAX_VALUE_SIZE: usize = 65_536;

/// A call in a state.
pub struct Question<'a> {
    pub view: &'a State,
    pub caller: &'a Caller,
    /// The server's time when it decides.
    pub now: Micros,
    /// The server's time before and after the call.
    pub during: When,
}

/// An answer, or a SQLSTATE.
pub type Outcome = Result<Answer, String>;
/// What the call changes, or the SQLSTATE that it must end with.
type Must<T> = Result<T, &'static str>;

const DENIED: &str = "42501";
const NOT_FOUND: &str = "PT404";
const CONFLICT: &str = "PT409";
const GONE: &str = "PT410";
const SEALED: &str = "PT503";
const INVALID: &str = "22023";

impl Question<'_> {
    /// What the call changes if this was its answer; else what is wrong with the answer.
    pub fn judge(&self, op: &Op, outcome: &Outcome) -> Result<Vec<Effect>, String> {
        let must = if !self.caller.is_granted(op) {
            Err(DENIED)
        } else if op.place().is_some() {
            self.of_secret(op, outcome)
        } else {
            self.of_others(op, outcome)
        };
        match (must, outcome) {
            (Err(code), Err(got)) if code == got => Ok(Vec::new()),
            (Err(code), got) => Err(format!("must be {code}, not {}", short(got))),
            (Ok(Ok(effects)), Ok(_)) => Ok(effects),
            (Ok(Err(problem)), Ok(_)) => Err(problem),
            (Ok(_), Err(got)) => Err(format!("must succeed, not {got}")),
        }
    }

    // --- access -------------------------------------------------------------------------------

    fn is_member(&self, project: Uuid) -> bool {
        let project = self.view.projects.get(&project);
        project.is_some_and(|it| match self.caller.user() {
            Some(user) => it.members.contains(&user),
            None => true,
        })
    }

    fn require_member(&self, project: Uuid) -> Must<()> {
        if self.is_member(project) { Ok(()) } else { Err(DENIED) }
    }

    fn find(&self, at: &Place) -> Must<&Secret> {
        self.require_member(at.project)?;
        self.view.secrets.get(&(at.project, at.name.clone())).ok_or(NOT_FOUND)
    }

    fn require_usable(&self, project: Uuid) -> Must<()> {
        let project = self.view.projects.get(&project);
        let sealed = self.view.is_sealed() || project.is_some_and(|it| it.sealed);
        if sealed { Err(SEALED) } else { Ok(()) }
    }

    /// Its first secret needs an active KEK.
    fn require_writable(&self, project: Uuid) -> Must<()> {
        self.require_usable(project)?;
        let has_key = self.view.projects.get(&project).is_some_and(|it| it.data_key > 0);
        if has_key || self.view.active_kek().is_some() { Ok(()) } else { Err(SEALED) }
    }

    // --- secrets -------------------------------------------------------------------------------

    fn of_secret(&self, op: &Op, outcome: &Outcome) -> Must<Result<Vec<Effect>, String>> {
        let at = op.place().expect("asked before");
        if let Op::Purge { confirm, .. } = op
            && *confirm != at.name
        {
            return Err(INVALID);
        }
        let options = match op {
            Op::Put { options, .. } | Op::Generate { options, .. } => options.clone(),
            Op::Rollback { cas, .. } => Options { cas: *cas, ..Options::default() },
            _ => Options::default(),
        };
        if options.cas.is_some_and(|cas| cas < 0) || !is_name(&at.name) {
            return Err(INVALID);
        }
        let effects = match op {
            Op::Put { value, .. } => {
                if value.0.len() > MAX_VALUE_SIZE {
                    return Err("PT413");
                }
                return self.write(at, Value::known(&value.0), &options, outcome);
            }
            Op::Generate { length, .. } => {
                let value = Value::generated(*length as usize);
                return self.write(at, value, &options, outcome);
            }
            Op::Rollback { version, .. } => {
                let secret = self.find(at)?;
                self.require_usable(at.project)?;
                let value = self.open(secret, Some(*version))?.value.clone();
                let cas = options.cas.or(Some(secret.current()));
                return self.write(at, value, &Options { cas, ..options }, outcome);
            }
            Op::Get { version, bytes, .. } => {
                let secret = self.find(at)?;
                self.require_usable(at.project)?;
                let value = &self.open(secret, *version)?.value;
                if !bytes && !value.is_text() {
                    return Err(INVALID);
                }
                match outcome {
                    Ok(Answer::Value(got)) if value.is(got) => Ok(Vec::new()),
                    _ => Err(String::from("another value")),
                }
            }
            Op::Describe { .. } => {
                let secret = self.find(at)?;
                self.told(at, secret, outcome).map(|()| Vec::new())
            }
            Op::Versions { .. } => {
                let secret = self.find(at)?;
                match outcome {
                    Ok(Answer::Versions(got)) if secret.has(got, self.now) => Ok(Vec::new()),
                    _ => Err(format!("other versions than {:?}", secret.versions)),
                }
            }
            Op::Purge { .. } => {
                self.find(at)?;
                Ok(vec![Effect::Secret((at.project, at.name.clone()), None)])
            }
            Op::Delete { .. } | Op::Undelete { .. } | Op::Expire { .. } => {
                let mut secret = self.find(at)?.clone();
                self.require_usable(at.project)?;
                let (Ok(Answer::Infos(_)) | Err(_)) = outcome else {
                    return Ok(Err(String::from("another kind of answer")));
                };
                let told = match outcome {
                    Ok(Answer::Infos(infos)) => infos.first(),
                    _ => None,
                };
                match op {
                    Op::Delete { .. } => {
                        if secret.deleted.is_some() {
                            return Err(GONE);
                        }
                        let deleted_at = told.and_then(|info| info.deleted_at).unwrap_or(self.now);
                        if !self.during.holds(deleted_at) {
                            return Ok(Err(String::from("deleted at another time")));
                        }
                        secret.deleted = Some((deleted_at, deleted_at + RECOVERY_WINDOW));
                    }
                    Op::Undelete { .. } => match secret.deleted {
                        None => return Err(CONFLICT),
                        Some((_, until)) if until <= self.now => return Err(GONE),
                        Some(_) => secret.deleted = None,
                    },
                    Op::Expire { expires_at, .. } => {
                        if secret.deleted.is_some() {
                            return Err(GONE);
                        }
                        secret.latest_mut().expires = expires_at.map(When::exactly);
                    }
                    _ => unreachable!("one of these three"),
                }
                secret.updated_at = self.during;
                if let Err(problem) = self.told(at, &secret, outcome) {
                    return Ok(Err(problem));
                }
                Ok(vec![Effect::Secret((at.project, at.name.clone()), Some(Box::new(secret)))])
            }
            _ => unreachable!("not about a secret"),
        };
        Ok(effects)
    }

    /// The version, if it can be read.
    fn open<'s>(&self, secret: &'s Secret, version: Option<i32>) -> Must<&'s Version> {
        if secret.deleted.is_some() {
            return Err(GONE);
        }
        let version = version.unwrap_or(secret.current());
        if !(1..=secret.current()).contains(&version) {
            return Err(NOT_FOUND);
        }
        if version < secret.oldest() || secret.versions[&version].is_expired(self.now) {
            return Err(GONE);
        }
        Ok(&secret.versions[&version])
    }

    fn write(
        &self,
        at: &Place,
        value: Value,
        options: &Options,
        outcome: &Outcome,
    ) -> Must<Result<Vec<Effect>, String>> {
        if options.expires_at.is_some_and(|at| at <= self.now) {
            return Err(INVALID);
        }
        let key = (at.project, at.name.clone());
        let mut effects = Vec::new();
        let former = match self.find(at) {
            Ok(secret) => {
                self.require_usable(at.project)?;
                match secret.deleted {
                    Some((_, until)) if until > self.now => return Err(GONE),
                    Some(_) => None,
                    None => Some(secret.clone()),
                }
            }
            Err(NOT_FOUND) => None,
            Err(_) if self.caller.user().is_none() => return Err("23503"),
            Err(code) => return Err(code),
        };
        if options.cas.is_some_and(|cas| cas != former.as_ref().map_or(0, Secret::current)) {
            return Err(CONFLICT);
        }
        self.require_writable(at.project)?;
        if self.view.projects[&at.project].data_key == 0 {
            effects.push(Effect::DataKey(at.project, 1));
        }
        let Ok(Answer::Written { id, name, version, created_at, expires_at }) = outcome else {
            return Ok(Err(String::from("another kind of answer")));
        };
        let is_new = former.is_none();
        let mut secret = former.unwrap_or_else(|| Secret {
            id: *id,
            versions: [].into(),
            description: None,
            metadata: None,
            created_at: *created_at,
            created_by: self.caller.author(),
            updated_at: When::exactly(*created_at),
            deleted: None,
        });
        let written = Version {
            value,
            created_at: *created_at,
            created_by: self.caller.author(),
            expires: options.expires_at.map(When::exactly),
        };
        if is_new {
            secret.versions.insert(1, written);
        } else {
            if let Some(time) = options.previous_valid_for {
                let then = self.during.after(time);
                let previous = secret.latest_mut();
                previous.expires = Some(previous.expires.map_or(then, |own| own.sooner(then)));
            }
            secret.add(written);
        }
        secret.updated_at = When::exactly(*created_at);
        if options.description.is_some() {
            secret.description.clone_from(&options.description);
        }
        if options.metadata.is_some() {
            secret.metadata.clone_from(&options.metadata);
        }
        let fits = *id == secret.id
            && *name == at.name
            && *version == secret.current()
            && self.during.holds(*created_at)
            && *expires_at == options.expires_at;
        if !fits {
            return Ok(Err(format!("it should have become {secret:?}")));
        }
        effects.push(Effect::Secret(key, Some(Box::new(secret))));
        Ok(Ok(effects))
    }

    fn told(&self, at: &Place, secret: &Secret, outcome: &Outcome) -> Result<(), String> {
        match outcome {
            Ok(Answer::Infos(infos)) => match infos.as_slice() {
                [info] if secret.is(&at.name, info, self.now) => Ok(()),
                _ => Err(format!("not as {secret:?}")),
            },
            _ => Ok(()),
        }
    }

    // --- everything else ------------------------------------------------------------------------

    fn of_others(&self, op: &Op, outcome: &Outcome) -> Must<Result<Vec<Effect>, String>> {
        let state = self.view;
        let open = || if state.is_sealed() { Err(SEALED) } else { Ok(()) };
        match op {
            Op::GetMany { project, names } => self.many(*project, names.as_deref(), outcome),
            Op::List { project, include_deleted, after, page_size } => {
                self.require_member(*project)?;
                let wanted = state.of_project(*project).filter(|(name, secret)| {
                    (*include_deleted || secret.deleted.is_none())
                        && after.as_ref().is_none_or(|after| *name > after.as_str())
                });
                let wanted: Vec<_> = wanted.take(*page_size as usize).collect();
                let Ok(Answer::Infos(got)) = outcome else { return Ok(Ok(Vec::new())) };
                let same = wanted.len() == got.len()
                    && wanted.iter().zip(got).all(|((name, it), got)| it.is(name, got, self.now));
                Ok(if same {
                    Ok(Vec::new())
                } else {
                    Err(format!("the list should be {wanted:?}"))
                })
            }
            Op::Due { project, within } => {
                project.map_or(Ok(()), |project| self.require_member(project))?;
                let mut wanted = Vec::new();
                for ((id, name), secret) in &state.secrets {
                    let Some(at) = secret.latest().expires else { continue };
                    let asked = project.is_none_or(|project| project == *id);
                    if asked
                        && self.is_member(*id)
                        && secret.deleted.is_none()
                        && at.to <= self.now + within
                    {
                        let status = if secret.is_expired(self.now) { "expired" } else { "due" };
                        wanted.push((*id, name.clone(), secret.current(), at, status));
                    }
                }
                let Ok(Answer::Due(got)) = outcome else { return Ok(Ok(Vec::new())) };
                let sorted = got.is_sorted_by_key(|(_, name, _, at, _)| (*at, name.clone()));
                let same =
                    |(id, name, version, at, status): &(Uuid, String, i32, Micros, String)| {
                        wanted.iter().any(|it| {
                            (it.0, &it.1, it.2, it.4) == (*id, name, *version, status.as_str())
                                && it.3.holds(*at)
                        })
                    };
                let fits = sorted && got.len() == wanted.len() && got.iter().all(same);
                Ok(if fits { Ok(Vec::new()) } else { Err(format!("due should be {wanted:?}")) })
            }
            Op::ProjectSealStatus { project } => {
                self.require_member(*project)?;
                let sealed = self.require_writable(*project).is_err();
                let Ok(Answer::Rows(rows)) = outcome else { return Ok(Ok(Vec::new())) };
                let told: bool = rows[0].get("sealed");
                Ok(if told == sealed {
                    Ok(Vec::new())
                } else {
                    Err(format!("sealed must be {sealed}"))
                })
            }
            Op::Seal { project: Some(project) } | Op::Unseal { project: Some(project) } => {
                open()?;
                self.require_data_key(*project)?;
                let sealed = matches!(op, Op::Seal { .. });
                Ok(Ok(vec![Effect::Sealed(*project, sealed)]))
            }
            Op::DekRotate { project } => {
                self.require_data_key(*project)?;
                self.require_usable(*project)?;
                state.active_kek().ok_or(SEALED)?;
                let next = state.projects[project].data_key + 1;
                Ok(self.number(outcome, next).map(|()| vec![Effect::DataKey(*project, next)]))
            }
            Op::Reencrypt { project } => {
                self.require_data_key(*project)?;
                self.require_usable(*project)?;
                let versions = state.of_project(*project).map(|(_, it)| it.versions.len());
                Ok(self.number(outcome, versions.sum::<usize>() as i64).map(|()| Vec::new()))
            }
            Op::KekGenerate => {
                open()?;
                Ok(self.number(outcome, state.keks.len() as i32 + 1).map(|()| Vec::new()))
            }
            Op::KekStep { step, kek } => {
                let kek = state.keks.get(kek).ok_or(NOT_FOUND)?;
                let status = self.step(*step, kek)?;
                open()?;
                let Ok(Answer::Rows(rows)) = outcome else { return Ok(Ok(Vec::new())) };
                let told: &str = rows[0].get(0);
                let fits = status.split('|').any(|it| it == told);
                Ok(if fits { Ok(Vec::new()) } else { Err(format!("must become {status}")) })
            }
            Op::KekDestroy { kek, confirm, .. } => {
                if *confirm != kek.to_string() {
                    return Err(INVALID);
                }
                let kek = state.keks.get(kek).ok_or(NOT_FOUND)?;
                if ["active", "retiring", "destroy_scheduled", "destroyed"]
                    .contains(&kek.status.as_str())
                {
                    return Err(CONFLICT);
                }
                open()?;
                Ok(Ok(Vec::new()))
            }
            Op::KekRewrap { .. } => {
                open()?;
                state.active_kek().ok_or(SEALED)?;
                Ok(Ok(Vec::new()))
            }
            Op::KekVerify { .. } => {
                // With another root key it answers, and says what is wrong.
                match state.root {
                    Root::Wrong if !state.sealed_by_operator => return Ok(Ok(Vec::new())),
                    _ => open()?,
                }
                let Ok(Answer::Rows(rows)) = outcome else { return Ok(Ok(Vec::new())) };
                let clean = rows.iter().all(|row| row.get::<_, Option<&str>>("problem").is_none());
                let fits = clean && rows.len() == state.keks.len();
                Ok(if fits { Ok(Vec::new()) } else { Err(format!("not clean: {rows:?}")) })
            }
            Op::KekRotate | Op::RootKeyRotate | Op::AuditPrune => {
                open()?;
                Ok(Ok(Vec::new()))
            }
            Op::AuditVerify => {
                open()?;
                let Ok(Answer::Rows(rows)) = outcome else { return Ok(Ok(Vec::new())) };
                let problems: Vec<String> = rows[0].get("problems");
                let ok: bool = rows[0].get("ok");
                let fits = ok && problems.is_empty();
                Ok(if fits { Ok(Vec::new()) } else { Err(format!("the log: {problems:?}")) })
            }
            Op::SealStatus => {
                let Ok(Answer::Rows(rows)) = outcome else { return Ok(Ok(Vec::new())) };
                let sealed = state.sealed_by_operator || state.root == Root::Missing;
                let projects = state.projects.values().filter(|it| it.sealed).count();
                let told: (bool, i64) = (rows[0].get("sealed"), rows[0].get("sealed_projects"));
                let must = (sealed, projects as i64);
                Ok(if told == must {
                    Ok(Vec::new())
                } else {
                    Err(format!("{must:?}, not {told:?}"))
                })
            }
            Op::Unseal { project: None } if state.root == Root::Missing => Err(SEALED),
            Op::Seal { project: None } | Op::Unseal { project: None } => Ok(Ok(Vec::new())),
            Op::KekConfigure { .. }
            | Op::KekStatus
            | Op::RootKeyVerify
            | Op::RootKeyStatus
            | Op::AuditSearch { .. }
            | Op::Health
            | Op::Metrics
            | Op::Doctor => Ok(Ok(Vec::new())),
            _ => unreachable!("about a secret"),
        }
    }

    fn many(
        &self,
        project: Uuid,
        names: Option<&[String]>,
        outcome: &Outcome,
    ) -> Must<Result<Vec<Effect>, String>> {
        if names.is_some_and(|names| !names.iter().all(|name| is_name(name))) {
            return Err(INVALID);
        }
        self.require_member(project)?;
        if self.view.sealed_by_operator || self.view.root == Root::Missing {
            return Err(SEALED);
        }
        let sealed = self.require_usable(project).is_err();
        let found: Vec<_> = self.view.of_project(project).collect();
        let asked: Vec<(&str, Option<&Secret>)> = match names {
            None => found.iter().map(|(name, secret)| (*name, Some(*secret))).collect(),
            Some(names) => {
                let mut once: Vec<&String> = Vec::new();
                names.iter().for_each(|name| {
                    if !once.contains(&name) {
                        once.push(name);
                    }
                });
                let secret = |name: &str| found.iter().find(|it| it.0 == name).map(|it| it.1);
                once.into_iter().map(|name| (name.as_str(), secret(name))).collect()
            }
        };
        let mut items = Vec::new();
        for (name, secret) in asked {
            let status = match secret {
                None => "not_found",
                Some(_) if sealed => "sealed",
                Some(secret) if secret.deleted.is_some() => {
                    if names.is_none() {
                        continue;
                    }
                    "deleted"
                }
                Some(secret) if secret.is_expired(self.now) => "expired",
                Some(secret) if !secret.latest().value.is_text() => "binary",
                Some(_) => "ok",
            };
            items.push((name, secret, status));
        }
        let nothing_opens = items.iter().all(|item| item.2 == "sealed");
        let any_is_there = match names {
            None => !found.is_empty(),
            Some(names) => found.iter().any(|(name, _)| names.iter().any(|it| it == name)),
        };
        if sealed && any_is_there && nothing_opens {
            return Err(SEALED);
        }
        let Ok(Answer::Items(got)) = outcome else { return Ok(Ok(Vec::new())) };
        let fits = got.len() == items.len()
            && got.iter().zip(&items).all(|(got, (name, secret, status))| {
                let value = match (&got.1, secret) {
                    (Some(value), Some(secret)) => {
                        *status == "ok" && secret.latest().value.is(value.as_bytes())
                    }
                    (value, _) => value.is_none() && *status != "ok",
                };
                got.0 == *name && got.3 == *status && got.2 == secret.map(Secret::current) && value
            });
        Ok(if fits { Ok(Vec::new()) } else { Err(format!("items should be {items:?}")) })
    }

    fn require_data_key(&self, project: Uuid) -> Must<()> {
        let has_key = self.view.projects.get(&project).is_some_and(|it| it.data_key > 0);
        if has_key { Ok(()) } else { Err(NOT_FOUND) }
    }

    fn number(&self, outcome: &Outcome, must: impl Into<i64>) -> Result<(), String> {
        let must = must.into();
        let Ok(Answer::Rows(rows)) = outcome else { return Ok(()) };
        let got =
            rows[0].try_get::<_, i64>(0).or_else(|_| rows[0].try_get::<_, i32>(0).map(Into::into));
        match got {
            Ok(got) if got == must => Ok(()),
            got => Err(format!("must be {must}, not {got:?}")),
        }
    }

    /// What a KEK becomes; alternatives where its data keys decide.
    fn step(&self, step: Step, kek: &Kek) -> Must<&'static str> {
        match (step, kek.status.as_str()) {
            (Step::Disable, "active" | "retiring" | "retired")
            | (Step::CancelDestroy, "destroy_scheduled") => Ok("disabled"),
            (Step::Enable, "disabled") => Ok("retired|retiring"),
            (Step::MarkCompromised, "active" | "retiring" | "retired" | "disabled") => {
                Ok("compromised")
            }
            _ => Err(CONFLICT),
        }
    }
}

/// Whether it can be the name of a secret.
pub fn is_name(name: &str) -> bool {
    let mut letters = name.bytes();
    letters.next().is_some_and(|it| it.is_ascii_alphabetic() || it == b'_')
        && letters.all(|it| it.is_ascii_alphanumeric() || b"_.-".contains(&it))
}

fn short(outcome: &Outcome) -> String {
    match outcome {
        Ok(answer) => format!("{answer:?}").chars().take(2000).collect(),
        Err(code) => code.clone(),
    }
}
