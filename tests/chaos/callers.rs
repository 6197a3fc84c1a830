//! Who calls: the roles of the API and of the operators, each with a session.

use std::path::Path;

use postgres::{Client, Config, NoTls};
use serde_json::json;
use support::Database;
use uuid::Uuid;

use crate::operations::Op;

/// Somebody who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    Superuser,
    Service,
    User(Uuid),
    Anon,
    KekAdmin,
    Auditor,
}

pub const KEK_ADMIN: &str = "chaos_kek_admin";
pub const AUDITOR: &str = "chaos_auditor";
/// Who looks without being a part of it: a superuser whose calls are told from others' in the log.
pub const WITNESS: &str = "chaos_witness";

impl Caller {
    /// A connection, as PostgREST or an operator would have it.
    pub fn connect(&self, db: &Database<'_>) -> Result<Client, postgres::Error> {
        self.connect_at(db, db.cluster().dir())
    }

    /// As [`Caller::connect`], to the socket in this directory.
    pub fn connect_at(&self, db: &Database<'_>, dir: &Path) -> Result<Client, postgres::Error> {
        let login = match self {
            Caller::Superuser => "postgres",
            Caller::KekAdmin => KEK_ADMIN,
            Caller::Auditor => AUDITOR,
            Caller::Service | Caller::User(_) | Caller::Anon => "authenticator",
        };
        let mut client = Config::new()
            .host_path(dir)
            .dbname(db.name())
            .user(login)
            .options("-c statement_timeout=120s -c lock_timeout=250ms")
            .connect(NoTls)?;
        let claims = match self {
            Caller::Service => json!({"role": "service_role"}),
            Caller::User(id) => json!({"role": "authenticated", "sub": id}),
            Caller::Anon => json!({"role": "anon"}),
            _ => return Ok(client),
        };
        client.query(
            "SELECT set_config('request.jwt.claims', $1, false), set_config('role', $2, false)",
            &[&claims.to_string(), &claims["role"].as_str()],
        )?;
        Ok(client)
    }

    /// The user, if row-level security applies.
    pub fn user(&self) -> Option<Uuid> {
        match self {
            Caller::User(id) => Some(*id),
            _ => None,
        }
    }

    /// Who is noted as the author of what they write.
    pub fn author(&self) -> String {
        match self {
            Caller::User(id) => id.to_string(),
            _ => self.role().to_owned(),
        }
    }

    /// The role that they act as.
    pub fn role(&self) -> &'static str {
        match self {
            Caller::Superuser => "postgres",
            Caller::Service => "service_role",
            Caller::User(_) => "authenticated",
            Caller::Anon => "anon",
            Caller::KekAdmin => KEK_ADMIN,
            Caller::Auditor => AUDITOR,
        }
    }

    /// Whether they have the grant.
    pub fn is_granted(&self, op: &Op) -> bool {
        let action = op.action();
        let observes = matches!(op, Op::Health | Op::Metrics | Op::Doctor);
        match self {
            Caller::Superuser => true,
            Caller::Service | Caller::User(_) => {
                (op.place().is_some() || action.starts_with("secret_"))
                    && action != "secret_reencrypt"
                    || matches!(op, Op::ProjectSealStatus { .. })
            }
            Caller::Anon => false,
            Caller::Auditor => observes || action.starts_with("audit_"),
            Caller::KekAdmin => {
                observes
                    || action.starts_with("kek_")
                    || action.starts_with("root_key_")
                    || ["dek_rotate", "secret_reencrypt", "seal", "unseal", "seal_status"]
                        .contains(&action)
            }
        }
    }
}
