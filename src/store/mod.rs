//! Our tables: all SQL text and every index scan. Nothing here decides; services do.
//!
//! Who runs what: statements on `project_secrets` run as the caller, so that row-level security and
//! column privileges decide; rows of the other tables are read by index scans and written as the
//! owner. All names and operators are qualified: a search_path of the caller changes nothing.

pub mod audit;
pub mod audit_keys;
pub mod binding;
pub mod browse;
pub mod data_keys;
pub mod doctor;
pub mod extension;
pub mod guard;
pub mod jobs;
pub mod keks;
pub mod secrets;
pub mod settings;
pub mod subscription;
pub mod versions;

/// A UUID as PostgreSQL stores it.
pub type Uuid = [u8; 16];

/// Microseconds since 2000-01-01 UTC, as PostgreSQL stores a timestamptz.
pub type Timestamp = i64;
