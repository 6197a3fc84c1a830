// What can be searched for in the audit log.

import type { Outcome } from '$lib/api-types';
import { words } from '$lib/format';
import type { Tone } from '$lib/ui/Badge.svelte';
import type { Option } from '$lib/ui/Select.svelte';

export const OUTCOMES: Record<Outcome, { label: string; tone: Tone }> = {
	ok: { label: 'OK', tone: 'good' },
	denied: { label: 'Denied', tone: 'bad' },
	not_found: { label: 'Not found', tone: 'warn' },
	error: { label: 'Error', tone: 'bad' },
};

/** Functions of the extension, and what the server does by itself, as members of a project meet them. */
const OF_SECRETS = [
	'secret_get', 'secret_get_many', 'secret_get_bytes', 'secret_put', 'secret_put_bytes', 'secret_generate',
	'secret_rollback', 'secret_list', 'secret_describe', 'secret_versions', 'secret_due', 'secret_expire',
	'secret_delete', 'secret_undelete', 'secret_purge', 'project_seal_status', 'audit_search',
];
const OF_OPERATORS = [
	'kek_rotate', 'rotation_finish', 'rotation_fail', 'kek_retire', 'kek_generate', 'kek_rewrap', 'kek_status',
	'kek_verify', 'kek_disable', 'kek_enable', 'kek_mark_compromised', 'kek_destroy', 'kek_cancel_destroy',
	'kek_destroyed', 'kek_configure', 'dek_rotate', 'secret_reencrypt', 'root_key_load', 'root_key_rotate',
	'root_key_verify', 'root_key_status', 'seal', 'sealed', 'unseal', 'unsealed', 'seal_status', 'audit_verify',
	'audit_tampered', 'audit_prune', 'project_deleted', 'attach_projects', 'setup_supabase',
];

const option = (value: string): Option => ({ value, label: value });

/** `chosen` may be one that is not in the list: it came with the URL. */
export function actionOptions(operator: boolean, chosen: string): Option[] {
	const known = operator ? [...OF_OPERATORS, ...OF_SECRETS] : OF_SECRETS;
	const all = chosen && !known.includes(chosen) ? [chosen, ...known] : known;
	return [{ value: '', label: 'Any action' }, ...all.map(option)];
}

export const OUTCOME_OPTIONS: Option[] = [
	{ value: '', label: 'Any outcome' },
	...Object.entries(OUTCOMES).map(([value, { label }]) => ({ value, label })),
];

export const outcomeOf = (outcome: Outcome) => OUTCOMES[outcome] ?? { label: words(outcome), tone: 'plain' };
