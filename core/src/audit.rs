//! Audit records and the seals that make a change of them noticed.
//!
//! A record is encoded once, canonically ([`Record::encode`]), and these bytes travel through the ring
//! and go into the seal. A seal covers the records of one batch by their digest, and is chained to the
//! seal before it: whoever changes, removes, inserts or reorders a record or a seal would have to make
//! every later MAC anew, which needs the audit key. The head names the last seal, so that the end of
//! the chain cannot be cut off, and the anchor, the last seal that was pruned, where it begins.

use crate::{
    error::Error,
    identity::{Encoder, Identity, Timestamp},
};
use sha2::{Digest, Sha256};

/// Bytes of an encoded record at most: what [`Record::fit`] leaves is never longer.
pub const RECORD_MAX: usize = 1800;

/// The format of [`Record::encode`].
const FORMAT: u8 = 1;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It did what was asked.
    Ok,
    /// The caller has no right to it.
    Denied,
    /// There is no such secret, version or KEK, or not any more.
    NotFound,
    /// It failed otherwise.
    Error,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 4] = [Outcome::Ok, Outcome::Denied, Outcome::NotFound, Outcome::Error];

    /// The name in the table.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Denied => "denied",
            Outcome::NotFound => "not_found",
            Outcome::Error => "error",
        }
    }

    /// The outcome of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name)
    }

    /// The outcome of a call that was refused with this SQLSTATE.
    pub fn of_sqlstate(sqlstate: &str) -> Self {
        match sqlstate {
            "42501" => Outcome::Denied,
            "PT404" | "PT410" => Outcome::NotFound,
            _ => Outcome::Error,
        }
    }
}

/// What happened, who did it, to what. Never a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it happened.
    pub time: Timestamp,
    /// The function's name, or what the system did.
    pub action: String,
    /// How it ended.
    pub outcome: Outcome,
    /// SQLSTATE of a refusal.
    pub sqlstate: Option<String>,
    /// The project.
    pub project_id: Option<[u8; 16]>,
    /// The secret.
    pub secret_id: Option<[u8; 16]>,
    /// The secret's name.
    pub name: Option<String>,
    /// The secret's version.
    pub version: Option<i32>,
    /// The KEK.
    pub kek_id: Option<i32>,
    /// What a reveal was for, as the caller said.
    pub purpose: Option<String>,
    /// What else is worth knowing.
    pub detail: Option<String>,
    /// The user who connected, or `system`.
    pub actor: String,
    /// The role whose rights counted.
    pub actor_role: Option<String>,
    /// `sub` of the JWT, as claimed by the session.
    pub claimed_sub: Option<String>,
    /// `role` of the JWT, as claimed by the session.
    pub claimed_role: Option<String>,
    /// Where the connection came from.
    pub client_address: Option<String>,
    /// What the client calls itself.
    pub application_name: Option<String>,
    /// The request's id, as claimed by the session.
    pub request_id: Option<String>,
    /// The transaction, if it had an id.
    pub transaction_id: Option<i64>,
    /// How often it happened: more than once where repeats were collapsed.
    pub times: i32,
}

impl Record {
    /// An event without any circumstances.
    pub fn new(time: Timestamp, action: &str, outcome: Outcome, actor: &str) -> Self {
        Self {
            time,
            action: action.to_owned(),
            outcome,
            sqlstate: None,
            project_id: None,
            secret_id: None,
            name: None,
            version: None,
            kek_id: None,
            purpose: None,
            detail: None,
            actor: actor.to_owned(),
            actor_role: None,
            claimed_sub: None,
            claimed_role: None,
            client_address: None,
            application_name: None,
            request_id: None,
            transaction_id: None,
            times: 1,
        }
    }

    /// Cuts every text to the length that there is room for. What is stored is what was cut.
    #[must_use]
    pub fn fit(mut self) -> Self {
        cut(&mut self.action, 63);
        cut(&mut self.actor, 63);
        for (text, limit) in [
            (&mut self.sqlstate, 5),
            (&mut self.name, 255),
            (&mut self.purpose, 400),
            (&mut self.detail, 300),
            (&mut self.actor_role, 63),
            (&mut self.claimed_sub, 128),
            (&mut self.claimed_role, 63),
            (&mut self.client_address, 64),
            (&mut self.application_name, 64),
            (&mut self.request_id, 128),
        ] {
            if let Some(text) = text {
                cut(text, limit);
            }
        }
        self
    }

    /// The canonical bytes: format (1), then every field in the order of the struct. Integers are little
    /// endian; an optional field is preceded by a byte, 0 or 1; a text by its length (u16).
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(384);
        out.push(FORMAT);
        out.extend_from_slice(&self.time.to_le_bytes());
        put_text(&mut out, &self.action);
        put_text(&mut out, self.outcome.as_str());
        put_optional_text(&mut out, self.sqlstate.as_deref());
        put_optional(&mut out, self.project_id.as_ref().map(<[u8; 16]>::as_slice));
        put_optional(&mut out, self.secret_id.as_ref().map(<[u8; 16]>::as_slice));
        put_optional_text(&mut out, self.name.as_deref());
        put_optional(
            &mut out,
            self.version.map(i32::to_le_bytes).as_ref().map(<[u8; 4]>::as_slice),
        );
        put_optional(&mut out, self.kek_id.map(i32::to_le_bytes).as_ref().map(<[u8; 4]>::as_slice));
        put_optional_text(&mut out, self.purpose.as_deref());
        put_optional_text(&mut out, self.detail.as_deref());
        put_text(&mut out, &self.actor);
        for text in [
            &self.actor_role,
            &self.claimed_sub,
            &self.claimed_role,
            &self.client_address,
            &self.application_name,
            &self.request_id,
        ] {
            put_optional_text(&mut out, text.as_deref());
        }
        let transaction = self.transaction_id.map(i64::to_le_bytes);
        put_optional(&mut out, transaction.as_ref().map(<[u8; 8]>::as_slice));
        out.extend_from_slice(&self.times.to_le_bytes());
        out
    }

    /// The record that these bytes encode.
    ///
    /// # Errors
    /// [`Error::Authentication`] if they encode none, or not canonically.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let mut rest = Reader(bytes);
        if rest.array::<1>()? != [FORMAT] {
            return Err(Error::Authentication);
        }
        let record = Self {
            time: i64::from_le_bytes(rest.array()?),
            action: rest.text()?,
            outcome: Outcome::parse(&rest.text()?).ok_or(Error::Authentication)?,
            sqlstate: rest.optional(Reader::text)?,
            project_id: rest.optional(Reader::array)?,
            secret_id: rest.optional(Reader::array)?,
            name: rest.optional(Reader::text)?,
            version: rest.optional(Reader::array)?.map(i32::from_le_bytes),
            kek_id: rest.optional(Reader::array)?.map(i32::from_le_bytes),
            purpose: rest.optional(Reader::text)?,
            detail: rest.optional(Reader::text)?,
            actor: rest.text()?,
            actor_role: rest.optional(Reader::text)?,
            claimed_sub: rest.optional(Reader::text)?,
            claimed_role: rest.optional(Reader::text)?,
            client_address: rest.optional(Reader::text)?,
            application_name: rest.optional(Reader::text)?,
            request_id: rest.optional(Reader::text)?,
            transaction_id: rest.optional(Reader::array)?.map(i64::from_le_bytes),
            times: i32::from_le_bytes(rest.array()?),
        };
        if rest.0.is_empty() { Ok(record) } else { Err(Error::Authentication) }
    }
}

/// SHA-256 over the records of a batch, in order, each as `id (i64) ‖ length (u64) ‖ bytes`.
#[derive(Default)]
pub struct RecordsDigest(Sha256);

impl RecordsDigest {
    /// Adds a record.
    pub fn add(&mut self, id: i64, record: &Record) {
        let bytes = record.encode();
        self.0.update(id.to_le_bytes());
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(&bytes);
    }

    /// The digest of all that were added.
    pub fn finish(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

/// What the MAC of a seal covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The id of the last record that it covers.
    pub seal_id: i64,
    /// The seal before it; 0 for the first.
    pub previous_id: i64,
    /// The MAC of the seal before it; zeros for the first.
    pub previous_mac: [u8; 32],
    /// The id of the first record that it covers.
    pub from_id: i64,
    /// How many records it covers.
    pub records: i32,
    /// Their [`RecordsDigest`].
    pub digest: [u8; 32],
    /// The month that all of them are of, by its first moment.
    pub month: Timestamp,
    /// The version of the audit key that makes the MAC.
    pub key_version: i32,
    /// The ring that records were taken from, and up to where.
    pub ring: (i64, i64),
    /// When it was made.
    pub sealed_at: Timestamp,
}

impl Identity for Seal {
    fn encode(&self) -> Vec<u8> {
        Encoder::new("meshhook_secrets/v1/audit-seal")
            .long(self.seal_id)
            .long(self.previous_id)
            .bytes(&self.previous_mac)
            .long(self.from_id)
            .integer(self.records)
            .bytes(&self.digest)
            .long(self.month)
            .integer(self.key_version)
            .long(self.ring.0)
            .long(self.ring.1)
            .long(self.sealed_at)
            .done()
    }
}

/// Where the chain of seals begins and ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The last seal; 0 if there is none.
    pub seal_id: i64,
    /// Its MAC.
    pub seal_mac: [u8; 32],
    /// The last seal that was pruned; 0 if none was.
    pub anchor_id: i64,
    /// Its MAC.
    pub anchor_mac: [u8; 32],
    /// Records of months before this one were pruned.
    pub pruned_before: Option<Timestamp>,
    /// The last event of the server as a whole that is recorded.
    pub server_event: Option<Timestamp>,
    /// The version of the audit key that makes the MAC.
    pub key_version: i32,
}

impl Identity for Head {
    fn encode(&self) -> Vec<u8> {
        Encoder::new("meshhook_secrets/v1/audit-head")
            .long(self.seal_id)
            .bytes(&self.seal_mac)
            .long(self.anchor_id)
            .bytes(&self.anchor_mac)
            .time(self.pruned_before)
            .time(self.server_event)
            .integer(self.key_version)
            .done()
    }
}

fn cut(text: &mut String, limit: usize) {
    text.truncate(text.floor_char_boundary(limit));
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_optional_text(out: &mut Vec<u8>, text: Option<&str>) {
    out.push(u8::from(text.is_some()));
    if let Some(text) = text {
        put_text(out, text);
    }
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    out.extend_from_slice(bytes.unwrap_or_default());
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Error::Authentication)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn text(&mut self) -> Result<String, Error> {
        let length = usize::from(u16::from_le_bytes(self.array()?));
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Error::Authentication)?;
        self.0 = rest;
        String::from_utf8(taken.to_vec()).map_err(|_| Error::Authentication)
    }

    fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match self.array()? {
            [0] => Ok(None),
            [1] => read(self).map(Some),
            _ => Err(Error::Authentication),
        }
    }
}
