/**
 * What `meshhook_secrets` looks like through supabase-js:
 *
 *     const supabase = createClient<MeshhookSecrets>(url, key)
 *     const { data, error } = await supabase.schema('meshhook_secrets').rpc('secret_list', { project_id })
 *
 * With types of your own: `createClient<Database & MeshhookSecrets>`. Times are ISO 8601 with a time zone, intervals
 * are PostgreSQL's ('30 days'), bytes are hexadecimal ('\\x00ff'). `error.code` is one of [[ErrorCode]].
 *
 * A test compares this file with the database's catalog.
 */

export type Json = string | number | boolean | null | { [key: string]: Json | undefined } | Json[];
export type Uuid = string;
export type Timestamp = string;
export type Interval = string;
export type Bytes = string;

/** SQLSTATEs of the extension; README.md says when each is raised. */
export type ErrorCode =
	| '42501' | 'PT404' | 'PT409' | 'PT410' | 'PT413' | 'PT503'
	| '22004' | '22023' | '23503' | '25006' | '55000' | 'XX001';

export type SecretStatus = 'enabled' | 'expired' | 'deleted';
export type RevealStatus = 'ok' | 'not_found' | 'expired' | 'deleted' | 'binary' | 'corrupted' | 'sealed';
export type DueStatus = 'due' | 'expired';
export type Charset = 'base64url' | 'hex' | 'alphanumeric' | 'digits' | 'printable';
export type Outcome = 'ok' | 'denied' | 'not_found' | 'error';
export type Severity = 'critical' | 'warning' | 'info';
export type KekStatus =
	| 'pending' | 'active' | 'retiring' | 'retired' | 'disabled' | 'compromised' | 'destroy_scheduled' | 'destroyed';

/** A secret without its value. */
export type SecretInfo = {
	id: Uuid;
	name: string;
	description: string | null;
	metadata: Json;
	version: number;
	status: SecretStatus;
	created_at: Timestamp;
	updated_at: Timestamp;
	created_by: string;
	expires_at: Timestamp | null;
	deleted_at: Timestamp | null;
	purge_after: Timestamp | null;
};

/** The version of a secret that was just written. */
export type SecretVersionInfo = {
	id: Uuid;
	name: string;
	version: number;
	created_at: Timestamp;
	expires_at: Timestamp | null;
};

export type SecretVersion = {
	version: number;
	status: SecretStatus;
	is_current: boolean;
	created_at: Timestamp;
	created_by: string;
	expires_at: Timestamp | null;
};

/** A revealed secret, or why it is not. */
export type RevealedSecret = {
	name: string;
	value: string | null;
	version: number | null;
	status: RevealStatus;
};

export type DueSecret = {
	project_id: Uuid;
	name: string;
	version: number;
	expires_at: Timestamp;
	status: DueStatus;
};

export type Kek = {
	kek_id: number;
	status: KekStatus;
	root_key_id: string;
	wraps: number;
	created_at: Timestamp;
	rotated_at: Timestamp | null;
	retired_at: Timestamp | null;
	destroy_after: Timestamp | null;
	destroyed_at: Timestamp | null;
	next_rotation: Timestamp | null;
	/** These five are of the active KEK's rotation. */
	remaining: number | null;
	done: number | null;
	per_second: number | null;
	estimated_end: Timestamp | null;
	last_error: string | null;
};

export type KekRotation = {
	job_id: number;
	kek_id: number;
	reason: string | null;
	total: number;
	remaining: number;
	started_at: Timestamp;
	started_by: string;
	finished_at: Timestamp | null;
	last_error: string | null;
};

export type KekVerification = {
	kek_id: number;
	status: KekStatus;
	wraps: number;
	good: number;
	bad: number;
	problem: string | null;
};

export type SealStatus = {
	sealed: boolean;
	cause: string | null;
	remedy: string | null;
	since: Timestamp | null;
	key_memory: string | null;
	sealed_projects: number | null;
};

/** Of one project, for its members: sealed by the server, the project or its KEK. */
export type ProjectSealStatus = Pick<SealStatus, 'sealed' | 'cause' | 'remedy'>;

export type RootKey = { root_key_id: string; is_current: boolean; is_loaded: boolean; keks: number };
export type RootKeyRotation = { kek_id: number; former_root_key_id: string; root_key_id: string };
export type RootKeyVerification = { root_key_id: string; keks: number; good: number; problem: string | null };

export type AuditRecord = {
	/** Null while the record waits for its seal. */
	id: number | null;
	time: Timestamp;
	action: string;
	outcome: Outcome;
	sqlstate: string | null;
	project_id: Uuid | null;
	secret_id: Uuid | null;
	name: string | null;
	version: number | null;
	kek_id: number | null;
	purpose: string | null;
	detail: string | null;
	actor: string;
	actor_role: string | null;
	claimed_sub: string | null;
	claimed_role: string | null;
	client_address: string | null;
	application_name: string | null;
	request_id: string | null;
	transaction_id: number | null;
	/** How many like it within a minute this record stands for. */
	times: number;
};

export type AuditVerification = {
	ok: boolean;
	seals: number;
	records: number;
	unsealed: number;
	first_seal: number | null;
	last_seal: number | null;
	sealed_until: Timestamp | null;
	problems: string[];
};

export type Health = { state: 'ok' | 'degraded' | 'sealed'; cause: string | null; since: Timestamp | null };
export type Metric = { name: string; kind: string; labels: Json; value: number | null; help: string };
export type Finding = { severity: Severity; finding: string; detail: string; remedy: string | null };

type OfSecret = { project_id: Uuid; name: string };
type NewVersion = OfSecret & {
	/** The current version it must have, 0 for none. */
	cas?: number;
	description?: string;
	expires_at?: Timestamp;
	metadata?: Json;
	/** How long the previous version still works; forever if left out. */
	previous_valid_for?: Interval;
};
type Reveal = OfSecret & { version?: number; purpose?: string };
type Nothing = Record<PropertyKey, never>;

/** A schema as supabase-js wants it. All functions are called with POST. */
export type MeshhookSecrets = {
	meshhook_secrets: {
		Tables: {
			/** Read-only, and only what row-level security shows: of use to find a secret by its id. */
			project_secrets: {
				Row: {
					project_id: Uuid;
					id: Uuid;
					name: string;
					description: string | null;
					metadata: Json;
					current_version: number;
					created_at: Timestamp;
					updated_at: Timestamp;
					created_by: string;
					expires_at: Timestamp | null;
					deleted_at: Timestamp | null;
					purge_after: Timestamp | null;
				};
				Insert: Record<string, never>;
				Update: Record<string, never>;
				Relationships: [];
			};
		};
		Views: Record<string, never>;
		Enums: Record<string, never>;
		CompositeTypes: Record<string, never>;
		Functions: {
			// meshhook_secrets_writer
			secret_put: { Args: NewVersion & { value: string }; Returns: SecretVersionInfo };
			secret_put_bytes: { Args: NewVersion & { value: Bytes }; Returns: SecretVersionInfo };
			secret_generate: { Args: NewVersion & { length?: number; charset?: Charset }; Returns: SecretVersionInfo };
			secret_rollback: { Args: OfSecret & { version: number; cas?: number }; Returns: SecretVersionInfo };
			secret_list: {
				Args: { project_id: Uuid; search?: string; include_deleted?: boolean; after?: string; page_size?: number };
				Returns: SecretInfo[];
			};
			secret_describe: { Args: OfSecret; Returns: SecretInfo };
			secret_versions: { Args: OfSecret; Returns: SecretVersion[] };
			secret_due: { Args: { project_id?: Uuid; within?: Interval }; Returns: DueSecret[] };
			secret_delete: { Args: OfSecret; Returns: SecretInfo };
			secret_undelete: { Args: OfSecret; Returns: SecretInfo };
			secret_purge: { Args: OfSecret & { confirm: string }; Returns: null };
			secret_expire: { Args: OfSecret & { expires_at: Timestamp | null }; Returns: SecretInfo };

			// meshhook_secrets_reader
			secret_get: { Args: Reveal; Returns: string };
			secret_get_bytes: { Args: Reveal; Returns: Bytes };
			secret_get_many: {
				Args: { project_id: Uuid; names?: string[]; purpose?: string };
				Returns: RevealedSecret[];
			};
			/** Also for meshhook_secrets_writer: whether the project's secrets can be written and revealed now. */
			project_seal_status: { Args: { project_id: Uuid }; Returns: ProjectSealStatus[] };

			// meshhook_secrets_kek_admin
			kek_generate: { Args: Nothing; Returns: number };
			kek_rotate: { Args: { reason?: string }; Returns: KekRotation };
			kek_rewrap: {
				Args: { batch_size?: number };
				Returns: { rewrapped: number; failed: number; remaining: number }[];
			};
			kek_status: { Args: Nothing; Returns: Kek[] };
			kek_verify: { Args: { kek_id?: number; deep?: boolean }; Returns: KekVerification[] };
			kek_disable: { Args: { kek_id: number }; Returns: KekStatus };
			kek_enable: { Args: { kek_id: number }; Returns: KekStatus };
			kek_mark_compromised: { Args: { kek_id: number }; Returns: KekStatus };
			kek_destroy: { Args: { kek_id: number; confirm: string; wait?: Interval }; Returns: Timestamp };
			kek_cancel_destroy: { Args: { kek_id: number }; Returns: KekStatus };
			kek_configure: { Args: { auto_rotate_period?: Interval | null }; Returns: null };
			dek_rotate: { Args: { project_id: Uuid }; Returns: number };
			secret_reencrypt: { Args: { project_id: Uuid }; Returns: number };
			seal_status: { Args: Nothing; Returns: SealStatus[] };
			root_key_status: { Args: Nothing; Returns: RootKey[] };
			root_key_rotate: { Args: Nothing; Returns: RootKeyRotation[] };
			root_key_verify: { Args: Nothing; Returns: RootKeyVerification[] };
			seal: { Args: { project_id?: Uuid }; Returns: null };
			unseal: { Args: { project_id?: Uuid }; Returns: null };

			// meshhook_secrets_auditor; library_version, health, metrics and doctor also for meshhook_secrets_kek_admin
			audit_search: {
				Args: {
					project_id?: Uuid;
					since?: Timestamp;
					until?: Timestamp;
					action?: string;
					outcome?: Outcome;
					actor?: string;
					name?: string;
					after?: number;
					page_size?: number;
				};
				Returns: AuditRecord[];
			};
			audit_verify: { Args: { from_seal?: number; to_seal?: number }; Returns: AuditVerification[] };
			audit_prune: { Args: { before: Timestamp }; Returns: { partition: string; records: number }[] };
			library_version: { Args: Nothing; Returns: string };
			health: { Args: Nothing; Returns: Health[] };
			metrics: { Args: Nothing; Returns: Metric[] };
			doctor: { Args: Nothing; Returns: Finding[] };
		};
	};
};
