//! The limits, in one place, each with its reason.

/// Bytes of every key: AES-256 (NIST FIPS 197) and XAES-256-GCM (C2SP `XAES-256-GCM.md`).
pub const KEY_LEN: usize = 32;

/// Characters of a secret's name. All are ASCII, so bytes too.
pub const NAME_MAX: usize = 255;

/// Bytes of a value that no setting can exceed (1 MiB): values travel through one JSON RPC answer.
pub const VALUE_MAX: usize = 1024 * 1024;

/// Bytes of a value by default (64 KiB).
pub const VALUE_DEFAULT: usize = 64 * 1024;

/// Bytes of a description: a line or two, shown in every list.
pub const DESCRIPTION_MAX: usize = 1024;

/// Bytes of the metadata of a secret (16 KiB), as PostgreSQL stores it.
pub const METADATA_MAX: usize = 16 * 1024;

/// Root keys accepted at once: the current one and previous ones that are being rotated away.
pub const ROOT_KEYS_MAX: usize = 8;

/// Bytes read from a root key source. Eight keys with generous comments fit many times over.
pub const ROOT_KEY_SOURCE_MAX: usize = 16 * 1024;

/// Characters of a generated value.
pub const GENERATE_MAX: usize = 4096;
