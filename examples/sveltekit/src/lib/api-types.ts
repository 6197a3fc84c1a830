// What the JSON API under /api takes and gives: the endpoints and the pages share it. README.md lists the endpoints.

import type {
	AuditRecord, AuditVerification, Charset, DueSecret, Finding, Health, Interval, Json, Kek, KekRotation, Outcome,
	ProjectSealStatus, RootKey, SealStatus, SecretInfo, SecretVersion, SecretVersionInfo, Timestamp, Uuid,
} from '../../../supabase/meshhook-secrets.types.ts';

export type * from '../../../supabase/meshhook-secrets.types.ts';

/** Who is signed in. An operator looks after keys and the audit log, and has neither projects nor secrets. */
export type User = { id: Uuid; email: string; name: string; operator: boolean };
export type Project = { id: Uuid; name: string };
export type DemoAccount = { email: string; name: string; does: string };

/** What every page knows (`page.data`). */
export type Session = {
	user: User | null;
	/** The projects of the user, by name; an operator has none. */
	projects: Project[];
	/** The accounts of the demo; null everywhere else. */
	demo: DemoAccount[] | null;
};

/** POST /login: the answer to a refused form. The form has `email`, `password` and, if wanted, `next`, a path of this site. */
export type LoginRefused = { email: string; message: string };

/** `code` is the SQLSTATE of the database's error (README.md of meshhook_secrets), or one of these. */
export type ApiErrorCode =
	| 'unauthenticated' | 'cross_origin' | 'invalid_request' | 'unavailable' | 'not_found'
	| 'method_not_allowed' | 'internal' | (string & {});
/** A part of the request that is not legal; never with what was given. */
export type Issue = { path: string; message: string };
/** The body of every answer with a status of 400 or more. */
export type ApiErrorBody = {
	error: { code: ApiErrorCode; message: string; detail: string | null; hint: string | null; issues?: Issue[] };
};

// GET /api/projects/{projectId}/secrets
export type ListSecrets = { search?: string; include_deleted?: boolean; after?: string; page_size?: number };
export type SecretPage = {
	secrets: SecretInfo[];
	/** What the next page is `after`; null on the last one. */
	next: string | null;
	seal: ProjectSealStatus;
};

/** Either a value, or one that the database makes up and nobody sees. */
export type ValueOrGenerate =
	| { value: string; generate?: undefined }
	| { value?: undefined; generate: { length?: number; charset?: Charset } };
type About = { description?: string; expires_at?: Timestamp; metadata?: Json };

// POST /api/projects/{projectId}/secrets -> 201 SecretVersionInfo
export type NewSecret = ValueOrGenerate & About & { name: string };

// PUT /api/projects/{projectId}/secrets/{secretId} -> SecretVersionInfo
export type NewVersion = ValueOrGenerate & About & {
	/** How long the previous version still works, like '1 hour'; forever if left out. */
	previous_valid_for?: Interval;
	/** The current version it must have. */
	cas?: number;
};

// PATCH /api/projects/{projectId}/secrets/{secretId} -> SecretInfo
export type Expire = { expires_at: Timestamp | 'now' | null };

// DELETE /api/projects/{projectId}/secrets/{secretId} -> SecretInfo; with ?purge=true&confirm=NAME 204

// POST /api/projects/{projectId}/secrets/{secretId}/reveal
export type RevealSecret = { version?: number; purpose?: 'reveal' | 'copy' };
export type Revealed = { value: string; version?: number };

// GET /api/projects/{projectId}/secrets/{secretId}/versions
export type Versions = { versions: SecretVersion[] };

// POST /api/projects/{projectId}/secrets/{secretId}/rollback -> SecretVersionInfo
export type Rollback = { version: number; cas?: number };

// POST /api/projects/{projectId}/secrets/{secretId}/undelete -> SecretInfo

// GET /api/projects/{projectId}/due
export type ListDue = { within?: Interval };
export type Due = { due: DueSecret[] };

// POST /api/v1/kek/rotate -> 202 KekRotation
export type RotateKek = { reason?: string };

// GET /api/v1/kek/status
export type KekState = { keks: Kek[]; root_keys: RootKey[]; seal: SealStatus; health: Health };

// GET /api/v1/doctor
export type Findings = { findings: Finding[] };

// GET /api/audit-logs; with format=csv all records as a file
export type SearchAudit = {
	project_id?: Uuid;
	since?: Timestamp;
	until?: Timestamp;
	action?: string;
	outcome?: Outcome;
	actor?: string;
	name?: string;
	after?: number;
	page_size?: number;
	format?: 'csv';
};
export type AuditPage = {
	records: AuditRecord[];
	/** What the next page is `after`; null on the last one. */
	next: number | null;
};

// GET /api/audit-logs/verify -> AuditVerification
export type { AuditVerification, KekRotation, SecretInfo, SecretVersionInfo };
