//! What must be in the database, kept in memory.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::Value as Json;
use uuid::Uuid;

use crate::operations::{Actual, Info, Stored};

/// Microseconds since 1970, by the server's clock.
pub type Micros = i64;

/// Versions that are kept of each secret; small, so that some are destroyed.
pub const MAX_VERSIONS: i32 = 4;
/// How long a deleted secret can be undeleted.
pub const RECOVERY_WINDOW: Micros = 30 * 86_400_000_000;

/// A point in time that the server chose: it lies in here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct When {
    pub from: Micros,
    pub to: Micros,
}

impl When {
    pub fn exactly(at: Micros) -> Self {
        Self { from: at, to: at }
    }

    pub fn holds(self, at: Micros) -> bool {
        (self.from..=self.to).contains(&at)
    }

    pub fn after(self, time: Micros) -> Self {
        Self { from: self.from + time, to: self.to + time }
    }

    pub fn sooner(self, other: Self) -> Self {
        Self { from: self.from.min(other.from), to: self.to.min(other.to) }
    }
}

/// A value. One that the server generated is learned when it is first seen; from then on it is that one,
/// in every version that was rolled back to it, too.
#[derive(Clone, Debug)]
pub struct Value {
    bytes: Rc<OnceCell<Vec<u8>>>,
    length: usize,
}

impl Value {
    pub fn known(bytes: &[u8]) -> Self {
        Self { length: bytes.len(), bytes: Rc::new(OnceCell::from(bytes.to_vec())) }
    }

    pub fn generated(length: usize) -> Self {
        Self { length, bytes: Rc::default() }
    }

    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.length && self.bytes.get_or_init(|| bytes.to_vec()) == bytes
    }

    /// Whether it can be told as text.
    pub fn is_text(&self) -> bool {
        self.bytes.get().is_none_or(|it| !it.contains(&0) && std::str::from_utf8(it).is_ok())
    }
}

#[derive(Clone, Debug)]
pub struct Version {
    pub value: Value,
    pub created_at: Micros,
    pub created_by: String,
    pub expires: Option<When>,
}

#[derive(Clone, Debug)]
pub struct Secret {
    pub id: Uuid,
    pub versions: BTreeMap<i32, Version>,
    pub description: Option<String>,
    pub metadata: Option<Json>,
    pub created_at: Micros,
    pub created_by: String,
    pub updated_at: When,
    /// When it was deleted, and until when it can be undeleted.
    pub deleted: Option<(Micros, Micros)>,
}

impl Secret {
    pub fn current(&self) -> i32 {
        *self.versions.keys().next_back().expect("a secret has a version")
    }

    pub fn oldest(&self) -> i32 {
        *self.versions.keys().next().expect("a secret has a version")
    }

    pub fn latest(&self) -> &Version {
        &self.versions[&self.current()]
    }

    pub fn latest_mut(&mut self) -> &mut Version {
        self.versions.last_entry().expect("a secret has a version").into_mut()
    }

    pub fn add(&mut self, version: Version) {
        self.versions.insert(self.current() + 1, version);
        let oldest = self.current() - MAX_VERSIONS + 1;
        self.versions.retain(|number, _| *number >= oldest);
    }

    pub fn is_expired(&self, now: Micros) -> bool {
        self.latest().is_expired(now)
    }

    fn status(&self, now: Micros) -> &'static str {
        match self.deleted {
            Some(_) => "deleted",
            None if self.is_expired(now) => "expired",
            None => "enabled",
        }
    }

    /// Whether the server tells of it as it is.
    pub fn is(&self, name: &str, info: &Info, now: Micros) -> bool {
        info.id == self.id
            && info.name == name
            && info.description == self.description
            && info.metadata == self.metadata
            && info.current_version == self.current()
            && info.status == self.status(now)
            && info.created_at == self.created_at
            && self.updated_at.holds(info.updated_at)
            && info.created_by == self.created_by
            && is_when(self.latest().expires, info.expires_at)
            && info.deleted_at == self.deleted.map(|it| it.0)
            && info.purge_after == self.deleted.map(|it| it.1)
    }

    /// Whether the server lists its versions as they are, newest first.
    pub fn has(&self, stored: &[Stored], now: Micros) -> bool {
        let version = |(number, version): (&i32, &Version), stored: &Stored| {
            let status = match self.deleted {
                Some(_) => "deleted",
                None if version.is_expired(now) => "expired",
                None => "enabled",
            };
            stored.version == *number
                && stored.status == status
                && stored.is_current == (*number == self.current())
                && stored.created_at == version.created_at
                && stored.created_by == version.created_by
                && is_when(version.expires, stored.expires_at)
        };
        stored.len() == self.versions.len()
            && self.versions.iter().rev().zip(stored).all(|(own, it)| version(own, it))
    }

    /// Whether this is what was found in the database.
    pub fn agrees(&self, name: &str, actual: &Actual, now: Micros) -> bool {
        let value = |(number, bytes): (&i32, &Vec<u8>)| {
            self.versions.get(number).is_some_and(|version| version.value.is(bytes))
        };
        self.is(name, &actual.info, now)
            && self.has(&actual.versions, now)
            && actual.values.iter().all(value)
    }
}

impl Version {
    pub fn is_expired(&self, now: Micros) -> bool {
        self.expires.is_some_and(|at| at.to <= now)
    }
}

fn is_when(own: Option<When>, told: Option<Micros>) -> bool {
    match (own, told) {
        (Some(own), Some(told)) => own.holds(told),
        (None, None) => true,
        _ => false,
    }
}

#[derive(Clone, Debug, Default)]
pub struct Project {
    /// The users who may see it.
    pub members: BTreeSet<Uuid>,
    /// The newest version of its data key; 0: it has none yet.
    pub data_key: i32,
    pub sealed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kek {
    pub status: String,
    /// When it is destroyed by itself.
    pub destroy_after: Option<Micros>,
}

/// Where the server finds its root key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Root {
    Right,
    Missing,
    Wrong,
}

pub type Key = (Uuid, String);

/// Everything.
#[derive(Clone, Debug)]
pub struct State {
    pub projects: BTreeMap<Uuid, Project>,
    pub secrets: BTreeMap<Key, Secret>,
    pub keks: BTreeMap<i32, Kek>,
    pub root: Root,
    pub sealed_by_operator: bool,
}

/// A change of the tables.
#[derive(Clone, Debug)]
pub enum Effect {
    Secret(Key, Option<Box<Secret>>),
    DataKey(Uuid, i32),
    Sealed(Uuid, bool),
}

impl State {
    pub fn apply(&mut self, effect: &Effect) {
        match effect {
            Effect::Secret(key, None) => drop(self.secrets.remove(key)),
            Effect::Secret(key, Some(secret)) => {
                self.secrets.insert(key.clone(), (**secret).clone());
            }
            Effect::DataKey(project, version) => {
                if let Some(project) = self.projects.get_mut(project) {
                    project.data_key = *version;
                }
            }
            Effect::Sealed(project, sealed) => {
                if let Some(project) = self.projects.get_mut(project) {
                    project.sealed = *sealed;
                }
            }
        }
    }

    /// What a transaction that did this sees.
    pub fn with<'a>(&self, effects: impl IntoIterator<Item = &'a Effect>) -> Self {
        let mut state = self.clone();
        effects.into_iter().for_each(|effect| state.apply(effect));
        state
    }

    pub fn of_project(&self, project: Uuid) -> impl Iterator<Item = (&str, &Secret)> {
        let of_it = self.secrets.iter().filter(move |((id, _), _)| *id == project);
        of_it.map(|((_, name), secret)| (name.as_str(), secret))
    }

    pub fn remove_project(&mut self, project: Uuid) {
        self.projects.remove(&project);
        self.secrets.retain(|(id, _), _| *id != project);
    }

    /// Whether no key can be had.
    pub fn is_sealed(&self) -> bool {
        self.sealed_by_operator || self.root != Root::Right
    }

    pub fn active_kek(&self) -> Option<i32> {
        self.keks.iter().find(|(_, kek)| kek.status == "active").map(|(id, _)| *id)
    }

    /// Whether data keys may hang on a KEK that is switched off.
    pub fn some_kek_is_off(&self) -> bool {
        let off = ["disabled", "destroy_scheduled", "destroyed"];
        self.keks.values().any(|kek| off.contains(&kek.status.as_str()))
    }
}
