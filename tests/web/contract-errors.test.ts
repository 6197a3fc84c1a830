// Every error of README.md's table, provoked through supabase-js.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import type { ErrorCode } from '../../examples/supabase/meshhook-secrets.types.ts';
import { ALICE, asService, BLOG, OPERATOR, SHOP, signedIn, startStack } from './support.ts';
import { raw } from './wire.ts';

const stack = await startStack();
const alice = await signedIn(stack, ALICE);
const operator = await signedIn(stack, OPERATOR);
const service = asService(stack);

const project_id = SHOP;
const NOWHERE = '00000000-0000-4000-8000-000000000000';
/** In values, descriptions and names that are given: no message may repeat it. */
const MARK = 'sesame_7f3a';
const A = { project_id, name: 'A' };

type Refusal = { code: string; message: string; details: string; hint: string };
const reached = new Set<string>();

/** The error of a call that fails with this code: one line that repeats nothing, a reason, and what to do. */
async function refused(code: ErrorCode, answer: PromiseLike<{ error: unknown }>): Promise<Refusal> {
	const error = (await answer).error as Refusal | null;
	assert.equal(error?.code, code, JSON.stringify(error));
	assert.match(error.message, /^[a-zA-Z -]{5,60}$/);
	assert.doesNotMatch(JSON.stringify(error), new RegExp(MARK));
	// Of what was tampered with, nothing is told.
	if (code === 'XX001') assert.equal(error.details, null);
	else assert.match(error.details, /^[^\n]+\.$/);
	assert.match(error.hint, /^[^\n]+[.)]$/);
	reached.add(code);
	return error;
}

/** The data of a call that succeeds. */
async function done(answer: PromiseLike<{ error: unknown; data: unknown }>): Promise<unknown> {
	const { error, data } = await answer;
	assert.equal(error, null);
	return data;
}

for (const [name, value] of [['A', 'a'], ['DELETED', 'd'], ['EXPIRED', 'e']]) {
	await done(raw(alice, 'secret_put', { project_id, name, value }));
}

test('42501: not a member, and no such project, which nobody can tell apart', async () => {
	for (const [name, more] of Object.entries({
		secret_put: { name: 'A', value: MARK }, secret_put_bytes: { name: 'A', value: '\\x00' },
		secret_generate: { name: 'A' },
		secret_list: {}, secret_due: {}, secret_get_many: {}, audit_search: {}, project_seal_status: {},
		secret_rollback: { name: 'A', version: 1 },
		secret_describe: { name: 'A' }, secret_versions: { name: 'A' }, secret_delete: { name: 'A' },
		secret_undelete: { name: 'A' }, secret_purge: { name: 'A', confirm: 'A' },
		secret_expire: { name: 'A', expires_at: '2040-01-01' }, secret_get: { name: 'GITHUB_TOKEN' },
		secret_get_bytes: { name: 'GITHUB_TOKEN' },
	})) {
		const foreign = await refused('42501', raw(alice, name, { project_id: BLOG, ...more }));
		const none = await refused('42501', raw(alice, name, { project_id: NOWHERE, ...more }));
		assert.deepEqual(foreign, none, name);
		assert.equal(foreign.message, 'permission denied for project');
	}
});

test('42501: a missing grant', async () => {
	// PostgreSQL's own error: contract-roles.test.ts looks at it for every function.
	const { error } = await raw(alice, 'kek_rotate');
	assert.deepEqual([error?.code, error?.message], ['42501', 'permission denied for function kek_rotate']);
});

test('PT404', async () => {
	for (const what of ['get', 'get_bytes', 'describe', 'versions', 'delete', 'undelete']) {
		const error = await refused('PT404', raw(alice, `secret_${what}`, { project_id, name: MARK }));
		assert.equal(error.message, 'secret not found');
	}
	await refused('PT404', raw(alice, 'secret_purge', { project_id, name: MARK, confirm: MARK }));
	const version = await refused('PT404', raw(alice, 'secret_get', { ...A, version: 99 }));
	assert.equal(version.message, 'secret version not found');
	await refused('PT404', raw(alice, 'secret_rollback', { ...A, version: 99 }));
	await refused('PT404', raw(operator, 'kek_disable', { kek_id: 99 }));
	await refused('PT404', raw(operator, 'dek_rotate', { project_id: NOWHERE }));
});

test('PT409', async () => {
	await refused('PT409', raw(alice, 'secret_put', { ...A, value: MARK, cas: 7 }));
	await refused('PT409', raw(alice, 'secret_put', { ...A, value: MARK, cas: 0 }));
	await refused('PT409', raw(alice, 'secret_put', { project_id, name: 'NEW', value: MARK, cas: 1 }));
	await refused('PT409', raw(alice, 'secret_generate', { ...A, cas: 7 }));
	await refused('PT409', raw(alice, 'secret_rollback', { ...A, version: 1, cas: 7 }));
	await refused('PT409', raw(alice, 'secret_undelete', A));
	await refused('PT409', raw(operator, 'kek_destroy', { kek_id: 1, confirm: '1' }));
	await refused('PT409', raw(operator, 'kek_cancel_destroy', { kek_id: 1 }));
});

test('PT410: deleted, expired, destroyed', async () => {
	const deleted = { project_id, name: 'DELETED' }, expired = { project_id, name: 'EXPIRED' };
	await done(raw(alice, 'secret_delete', deleted));
	for (const name of ['secret_get', 'secret_get_bytes', 'secret_put', 'secret_delete']) {
		const args = name === 'secret_put' ? { ...deleted, value: MARK } : deleted;
		const error = await refused('PT410', raw(alice, name, args));
		assert.equal(error.message, 'secret is deleted', name);
	}
	await done(raw(alice, 'secret_expire', { ...expired, expires_at: new Date().toISOString() }));
	const late = await refused('PT410', raw(alice, 'secret_get', expired));
	assert.equal(late.message, 'secret has expired');

	const many = { project_id, name: 'MANY' };
	for (let version = 1; version <= 11; version++) {
		await done(raw(alice, 'secret_put', { ...many, value: String(version) }));
	}
	const destroyed = await refused('PT410', raw(alice, 'secret_get', { ...many, version: 1 }));
	assert.equal(destroyed.message, 'secret version is destroyed');
	assert.equal(await done(raw(alice, 'secret_get', { ...many, version: 2 })), '2');
});

test('PT413', async () => {
	await refused('PT413', raw(alice, 'secret_put', { ...A, value: MARK.repeat(6000) }));
	await refused('PT413', raw(alice, 'secret_put_bytes', { ...A, value: `\\x${'00'.repeat(65_537)}` }));
	await refused('PT413', raw(alice, 'secret_put', { ...A, value: 'v', description: MARK.repeat(100) }));
	await refused('PT413', raw(alice, 'secret_put', { ...A, value: 'v', metadata: { a: MARK.repeat(1600) } }));
});

test('PT503: sealed', async () => {
	await done(raw(operator, 'seal', { project_id }));
	const one = await refused('PT503', raw(alice, 'secret_get', A));
	await refused('PT503', raw(alice, 'secret_put', { ...A, value: MARK }));
	await done(raw(operator, 'unseal', { project_id }));
	await done(raw(operator, 'seal'));
	const all = await refused('PT503', raw(alice, 'secret_get', A));
	await refused('PT503', raw(alice, 'secret_get_many', { project_id }));
	await refused('PT503', raw(alice, 'secret_put', { ...A, value: MARK }));
	await refused('PT503', raw(alice, 'secret_generate', A));
	await refused('PT503', raw(operator, 'kek_rotate'));
	await done(raw(alice, 'secret_list', { project_id }));
	await done(raw(operator, 'unseal'));
	assert.equal(await done(raw(alice, 'secret_get', A)), 'a');
	assert.equal(one.message, all.message);
	assert.notEqual(one.details, all.details);
});

test('PT503: the audit record cannot be written', async () => {
	await stack.sql("ALTER SYSTEM SET meshhook_secrets.audit_timeout = '300ms'");
	await stack.sql('SELECT pg_reload_conf()');
	const lock = stack.sql('BEGIN; LOCK TABLE meshhook_secrets.audit_log; SELECT pg_sleep(5)');
	const held = `SELECT count(*) FROM pg_locks WHERE relation = 'meshhook_secrets.audit_log'::regclass
		AND mode = 'AccessExclusiveLock' AND granted`;
	try {
		const patience = Date.now() + 5000;
		while ((await stack.sql(held)) !== '1') {
			assert.ok(Date.now() < patience, 'the table is not locked');
			await sleep(50);
		}
		const error = await refused('PT503', raw(alice, 'secret_get', A));
		assert.equal(error.message, 'audit record cannot be written');
	} finally {
		await lock;
		await stack.sql('ALTER SYSTEM RESET meshhook_secrets.audit_timeout');
		await stack.sql('SELECT pg_reload_conf()');
	}
	// It recovers by itself.
	assert.equal(await done(raw(alice, 'secret_get', A)), 'a');
});

test("22004: null, over SQL in the shape of PostgREST's statement", async () => {
	// The demo's gateway turns null into an empty string, PostgREST does not.
	const call = (name: string, types: Record<string, string>, body: object) => {
		const fields = Object.entries(types);
		return stack.sql(`\\set VERBOSITY verbose
			BEGIN;
			SET LOCAL ROLE authenticated;
			SET LOCAL request.jwt.claims = '{"sub": "a11ce000-0000-4000-8000-000000000001", "role": "authenticated"}';
			WITH pgrst_source AS (SELECT pgrst_call.* FROM (SELECT '${JSON.stringify(body)}'::json AS json_data) pgrst_payload,
				LATERAL (SELECT ${fields.map(([field]) => `"${field}"`)} FROM json_to_record(pgrst_payload.json_data)
					AS _(${fields.map(([field, type]) => `"${field}" ${type}`)}) LIMIT 1) pgrst_body,
				LATERAL meshhook_secrets."${name}"(${fields.map(([field]) => `"${field}" := pgrst_body."${field}"`)}) pgrst_call)
			SELECT json_agg(_postgrest_t) FROM pgrst_source _postgrest_t;
			COMMIT`, 'authenticator');
	};
	const types = { project_id: 'uuid', name: 'text', value: 'text', cas: 'int' };
	const put = (body: object) => call('secret_put', types, { ...A, value: MARK, ...body });
	assert.match(await put({ name: 'NULLS', cas: null }), /"version":1/);
	for (const argument of ['project_id', 'name', 'value']) {
		const error = await put({ [argument]: null }).then(() => 'nothing went wrong', String);
		assert.match(error, /ERROR:  22004: argument must not be null\nDETAIL:  The argument .*\nHINT:  Give a value/);
		assert.ok(error.includes(`"${argument}"`));
		assert.doesNotMatch(error, new RegExp(MARK));
	}
	reached.add('22004');
});

test('22023: what is not legal', async () => {
	for (const name of ['', 'a b', '1A', 'é', 'A'.repeat(256), `${MARK}'; DROP TABLE x; --`]) {
		await refused('22023', raw(alice, 'secret_put', { project_id, name, value: MARK }));
	}
	await refused('22023', raw(alice, 'secret_put', { ...A, value: MARK, cas: -1 }));
	await refused('22023', raw(alice, 'secret_put', { ...A, value: MARK, expires_at: '2020-01-01T00:00:00Z' }));
	await refused('22023', raw(alice, 'secret_put', { ...A, value: MARK, previous_valid_for: '-1 hour' }));
	await refused('22023', raw(alice, 'secret_generate', { ...A, length: 0 }));
	await refused('22023', raw(alice, 'secret_generate', { ...A, charset: MARK }));
	await refused('22023', raw(alice, 'secret_list', { project_id, page_size: 0 }));
	await refused('22023', raw(alice, 'secret_purge', { ...A, confirm: MARK }));
	await refused('22023', raw(alice, 'secret_get', { ...A, purpose: MARK.repeat(10) }));
	const names = Array.from({ length: 1001 }, (_, index) => `N${index}`);
	await refused('22023', raw(alice, 'secret_get_many', { project_id, names }));
	await refused('22023', raw(alice, 'secret_due', { project_id, within: '-1 day' }));
	await refused('22023', raw(alice, 'audit_search', { project_id, outcome: MARK }));
	await refused('22023', raw(operator, 'kek_configure', { auto_rotate_period: '1 minute' }));
	await refused('22023', raw(operator, 'kek_destroy', { kek_id: 1, confirm: MARK }));
	await refused('22023', raw(operator, 'audit_prune', { before: '2099-01-01T00:00:00Z' }));
	await done(raw(alice, 'secret_put_bytes', { project_id, name: 'BINARY', value: '\\xff' }));
	const binary = await refused('22023', raw(alice, 'secret_get', { project_id, name: 'BINARY' }));
	assert.equal(binary.message, 'value is binary');
});

test('23503: service_role is a member of everything, but not of nothing', async () => {
	await refused('23503', raw(service, 'secret_put', { project_id: NOWHERE, name: 'A', value: MARK }));
	await refused('23503', raw(service, 'secret_generate', { project_id: NOWHERE, name: 'A' }));
});

test('25006: a write by GET, which PostgREST runs read-only', async () => {
	await refused('25006', raw(alice, 'secret_put', { ...A, value: 'v' }, { get: true }));
	await refused('25006', raw(alice, 'secret_delete', A, { get: true }));
	assert.equal(await done(raw(alice, 'secret_get', A)), 'a');
});

test('XX001: tampered', async () => {
	await done(raw(alice, 'secret_put', { project_id, name: 'TAMPERED', value: MARK }));
	await stack.sql(`SET session_replication_role = replica;
		UPDATE meshhook_secrets.secret_versions SET value = set_byte(value, 50, get_byte(value, 50) # 1)
		WHERE secret_id = (SELECT id FROM meshhook_secrets.project_secrets WHERE name = 'TAMPERED')`);
	await refused('XX001', raw(alice, 'secret_get', { project_id, name: 'TAMPERED' }));
	await refused('XX001', raw(alice, 'secret_get_bytes', { project_id, name: 'TAMPERED' }));
	await done(raw(alice, 'secret_put', { project_id, name: 'TAMPERED', value: 'good again' }));
	assert.equal(await done(raw(alice, 'secret_get', { project_id, name: 'TAMPERED' })), 'good again');
});

test('a call that no function fits is not "no such secret"', async () => {
	for (const [name, args] of Object.entries<object>({
		secret_get: { project_id, nam: 'A' }, secret_put: A, secret_describe: { ...A, more: MARK }, secret_nope: A,
	})) {
		const { error, data } = await raw(alice, name, args);
		assert.deepEqual([error?.code, data], ['PGRST202', null], name);
		assert.doesNotMatch(JSON.stringify(error), new RegExp(MARK));
	}
});

test("README.md's table was reached", () => {
	const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
	const table = readme.slice(readme.indexOf('\n## Errors\n'), readme.indexOf('\n## Settings\n'));
	const codes = [...table.matchAll(/^\| ([\w, ]+) \| \d/gm)].flatMap((row) => row[1].split(', '));
	// 55000 takes a server without the library.
	assert.deepEqual(codes.filter((code) => !reached.has(code)), ['55000']);
});
