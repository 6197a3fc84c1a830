// Who may call what: every function of the schema by every role, over the API.

import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { readCatalog } from './catalog.ts';
import { ALICE, asService, clientOf, OPERATOR, SHOP, signedIn, startStack } from './support.ts';
import { raw } from './wire.ts';

const stack = await startStack();
const apiOf = (token: string) => clientOf(stack, token).schema('meshhook_secrets');
const APIS = {
	anon: apiOf(stack.anonKey),
	authenticated: await signedIn(stack, ALICE),
	service_role: asService(stack),
	meshhook_operator: await signedIn(stack, OPERATOR),
};
type Role = keyof typeof APIS;

const ANY = { project_id: SHOP, name: 'NONE' };
const SECRETS: Role[] = ['authenticated', 'service_role'];
const KEYS: Role[] = ['meshhook_operator'];
const NOBODY: Role[] = [];

/** Who may call a function, and arguments with which it does no harm, or fails later on. */
const TABLE: Record<string, [roles: Role[], args: object]> = {
	secret_put: [SECRETS, { ...ANY, value: 'v' }],
	secret_put_bytes: [SECRETS, { ...ANY, value: '\\x00' }],
	secret_generate: [SECRETS, ANY],
	secret_rollback: [SECRETS, { ...ANY, version: 99 }],
	secret_list: [SECRETS, { project_id: SHOP }],
	secret_describe: [SECRETS, ANY],
	secret_versions: [SECRETS, ANY],
	secret_due: [SECRETS, { project_id: SHOP }],
	secret_delete: [SECRETS, { ...ANY, name: 'OTHER' }],
	secret_undelete: [SECRETS, ANY],
	secret_purge: [SECRETS, { ...ANY, confirm: 'OTHER' }],
	secret_expire: [SECRETS, { ...ANY, name: 'OTHER', expires_at: '2090-01-01T00:00:00Z' }],
	secret_get: [SECRETS, ANY],
	secret_get_bytes: [SECRETS, ANY],
	secret_get_many: [SECRETS, { project_id: SHOP, names: ['NONE'] }],
	/** Asked by the policies, as the caller: it tells whoever asks their own projects. */
	member_projects: [SECRETS, {}],
	project_seal_status: [SECRETS, { project_id: SHOP }],
	seal_status: [KEYS, {}],
	kek_generate: [KEYS, {}],
	kek_rotate: [KEYS, {}],
	kek_rewrap: [KEYS, {}],
	kek_status: [KEYS, {}],
	kek_verify: [KEYS, {}],
	kek_disable: [KEYS, { kek_id: 99 }],
	kek_enable: [KEYS, { kek_id: 99 }],
	kek_mark_compromised: [KEYS, { kek_id: 99 }],
	kek_destroy: [KEYS, { kek_id: 99, confirm: '99' }],
	kek_cancel_destroy: [KEYS, { kek_id: 99 }],
	kek_configure: [KEYS, {}],
	dek_rotate: [KEYS, { project_id: SHOP }],
	secret_reencrypt: [KEYS, { project_id: SHOP }],
	root_key_status: [KEYS, {}],
	root_key_rotate: [KEYS, {}],
	root_key_verify: [KEYS, {}],
	seal: [KEYS, { project_id: '00000000-0000-4000-8000-000000000000' }],
	unseal: [KEYS, { project_id: SHOP }],
	audit_search: [['authenticated', ...KEYS], { project_id: SHOP }],
	audit_verify: [KEYS, {}],
	audit_prune: [KEYS, { before: '2000-01-01T00:00:00Z' }],
	library_version: [KEYS, {}],
	health: [KEYS, {}],
	metrics: [KEYS, {}],
	doctor: [KEYS, {}],
	// For superusers.
	attach_projects: [NOBODY, { projects: 'public.projects' }],
	setup_supabase: [NOBODY, { users_may_reveal: true }],
	audit_make_partition: [NOBODY, { at: '2020-01-01T00:00:00Z' }],
	audit_record_setup: [NOBODY, { action: 'forged', detail: 'forged' }],
};
/** Triggers: no call reaches them. */
const TRIGGERS = ['host_project_changed', 'refuse_direct_change', 'remove_versions'];

test('every function is in the table', async () => {
	const names = [...(await readCatalog(stack)).keys()];
	assert.deepEqual(names.sort(), [...Object.keys(TABLE), ...TRIGGERS].sort());
});

for (const [name, [roles, args]] of Object.entries(TABLE)) {
	test(`${name}: ${roles.join(', ') || 'nobody'}`, async () => {
		for (const [role, api] of Object.entries(APIS)) {
			const { error, data } = await raw(api, name, args);
			if (roles.includes(role as Role)) {
				assert.doesNotMatch(error?.code ?? '', /^42|^PGRST/, `${role}: ${error?.message}`);
			} else {
				const what = role === 'anon' ? 'schema meshhook_secrets' : `function ${name}`;
				assert.equal(error?.message, `permission denied for ${what}`, role);
				assert.deepEqual([error.code, data], ['42501', null], role);
			}
		}
	});
}

test('triggers cannot be called', async () => {
	for (const name of TRIGGERS) {
		for (const api of Object.values(APIS)) assert.notEqual((await raw(api, name)).error, null, name);
	}
});

test('of the tables, only what a writer may know', async () => {
	const tables = (await stack.sql(`SELECT relname FROM pg_class
		WHERE relnamespace = 'meshhook_secrets'::regnamespace AND relkind IN ('r', 'p', 'v', 'm')`)).split('\n');
	assert.ok(tables.includes('secret_versions'));
	for (const table of tables) {
		for (const [role, api] of Object.entries(APIS)) {
			const { error } = await api.from(table as 'project_secrets').select('*').limit(1);
			const may = table === 'project_secrets' && SECRETS.includes(role as Role);
			assert.equal(error === null, may, `${role} and ${table}: ${error?.message}`);
		}
	}
	const columns = 'project_id, id, name, description, metadata, current_version, created_at, updated_at, ' +
		'created_by, expires_at, deleted_at, purge_after';
	const read = async (role: Role) =>
		await APIS[role].from('project_secrets').select<string, { project_id: string }>(columns);
	const projects = (rows: { project_id: string }[] | null) => [...new Set(rows?.map((row) => row.project_id))];
	assert.deepEqual(projects((await read('authenticated')).data), [SHOP]);
	assert.equal(projects((await read('service_role')).data).length, 2);
	assert.equal((await read('anon')).error?.code, '42501');
	assert.equal((await read('meshhook_operator')).error?.code, '42501');
});

test('secrets are changed by functions only', async () => {
	for (const role of ['authenticated', 'service_role'] as const) {
		const table = APIS[role].from('project_secrets');
		const change = { description: 'changed' } as never;
		assert.equal((await table.update(change).eq('project_id', SHOP)).error?.code, '42501');
		assert.equal((await table.delete().eq('project_id', SHOP)).error?.code, '42501');
		assert.equal((await table.insert({ project_id: SHOP, id: SHOP, name: 'X' } as never)).error?.code, '42501');
	}
});

test('nobody makes himself an operator', async () => {
	const id = 'a11ce000-0000-4000-8000-000000000001';
	for (const role of ['anon', 'authenticated', 'service_role', 'meshhook_operator', 'meshhook_scheduler']) {
		for (const statement of [
			'SELECT user_id FROM public.meshhook_operators', `INSERT INTO public.meshhook_operators VALUES ('${id}')`,
			`UPDATE public.meshhook_operators SET user_id = '${id}'`, 'DELETE FROM public.meshhook_operators',
			`SELECT public.meshhook_access_token_hook('{"user_id": "${id}", "claims": {}}')`,
		]) {
			await assert.rejects(stack.sql(`SET ROLE ${role}; ${statement}`, 'authenticator'), /permission denied for/);
		}
	}
});

test('a token that is not good is refused before the database', async () => {
	const part = (json: object) => Buffer.from(JSON.stringify(json)).toString('base64url');
	const good = (await stack.auth.session(ALICE)).access_token;
	const [head, payload, signature] = good.split('.');
	const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
	const forged = `${head}.${part({ ...claims, role: 'service_role' })}`;
	const tokens = {
		expired: stack.token({ role: 'service_role' }, -60),
		'signed by somebody else': `${forged}.${createHmac('sha256', 'another secret').update(forged).digest('base64url')}`,
		'with other claims than were signed': `${forged}.${signature}`,
		'without a signature': `${part({ alg: 'none', typ: 'JWT' })}.${part({ ...claims, role: 'service_role' })}.`,
		garbage: 'garbage',
	};
	for (const [what, token] of Object.entries(tokens)) {
		const { error, data } = await raw(apiOf(token), 'secret_put', { project_id: SHOP, name: 'FORGED', value: 'v' });
		assert.match(error?.code ?? '', /^PGRST3\d\d$/, what);
		assert.equal(data, null);
	}
	// The same call with a good token: it was not the call. And nothing but this one has left a record.
	await raw(apiOf(good), 'secret_put', { project_id: SHOP, name: 'FORGED', value: 'v' });
	const records = await raw(APIS.meshhook_operator, 'audit_search', { name: 'FORGED' });
	assert.deepEqual((records.data as unknown as { outcome: string }[]).map(({ outcome }) => outcome), ['ok']);
});

test('a token with a role that is not for the API, without a role, without a user', async () => {
	const put = (claims: { role?: string }) =>
		raw(apiOf(stack.token(claims)), 'secret_put', { project_id: SHOP, name: 'X', value: 'v' });
	for (const role of ['postgres', 'authenticator', 'meshhook_secrets_reader']) {
		assert.equal((await put({ role })).error?.code, '42501', role);
	}
	assert.equal((await put({})).error?.message, 'permission denied for schema meshhook_secrets');
	assert.equal((await put({ role: 'authenticated' })).error?.message, 'permission denied for project');
});
