// Every function through supabase-js: arguments by name, and the exact form of each answer.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { readCatalog } from './catalog.ts';
import { ALICE, asService, OPERATOR, SHOP, signedIn, startStack } from './support.ts';
import { compile, TYPES } from './tsc.ts';
import { call, type Api, type Call, type Functions, type Name } from './wire.ts';

const ALICE_ID = 'a11ce000-0000-4000-8000-000000000001';
const project_id = SHOP;
const inYears = (years: number) => new Date(Date.now() + years * 365 * 86_400_000).toISOString();

const stack = await startStack();
const alice = await signedIn(stack, ALICE);
const operator = await signedIn(stack, OPERATOR);
const service = asService(stack);
const catalog = await readCatalog(stack);
/** All that was asked and answered; the last tests look back at it. */
const calls: Call[] = [];
const ask = <N extends Name>(api: Api, name: N, args: Functions[N]['Args']) => call(api, catalog, calls, name, args);

/** A reload takes effect a little later. */
async function until(done: () => Promise<boolean>) {
	for (const end = Date.now() + 10_000; !(await done()); ) assert.ok(Date.now() < end, 'it does not come');
}

test('a value is written with every option', async () => {
	const expires_at = inYears(1);
	const written = await ask(alice, 'secret_put', {
		project_id, name: 'A', value: 'first', cas: 0, description: 'Payments', expires_at,
		metadata: { team: ['a', 'b'] }, previous_valid_for: '1 hour',
	});
	assert.equal(written.name, 'A');
	assert.equal(written.version, 1);
	assert.equal(Date.parse(written.expires_at!), Date.parse(expires_at));
	const described = await ask(alice, 'secret_describe', { project_id, name: 'A' });
	assert.deepEqual({ ...described, updated_at: described.created_at }, {
		id: written.id, name: 'A', description: 'Payments', metadata: { team: ['a', 'b'] }, version: 1,
		status: 'enabled',
		created_at: written.created_at, updated_at: written.created_at, created_by: ALICE_ID,
		expires_at: written.expires_at, deleted_at: null, purge_after: null,
	});
});

test('bytes are written and generated with every option', async () => {
	const options =
		{ project_id, cas: 0, description: 'd', expires_at: inYears(2), metadata: 7, previous_valid_for: '1 day' };
	assert.equal((await ask(alice, 'secret_put_bytes', { ...options, name: 'B', value: '\\x00ff' })).version, 1);
	assert.equal(await ask(alice, 'secret_get_bytes', { project_id, name: 'B', version: 1, purpose: 'run' }), '\\x00ff');
	assert.equal((await ask(alice, 'secret_generate', { ...options, name: 'C', length: 20, charset: 'hex' })).version, 1);
	const generated = await ask(alice, 'secret_get', { project_id, name: 'C', version: 1, purpose: 'reveal' });
	assert.match(generated, /^[0-9a-f]{20}$/);
	// As few arguments as can be.
	assert.equal((await ask(alice, 'secret_put', { project_id, name: 'D', value: 'd' })).expires_at, null);
	assert.equal((await ask(alice, 'secret_generate', { project_id, name: 'E' })).version, 1);
	assert.match(await ask(service, 'secret_get', { project_id, name: 'E' }), /^[A-Za-z0-9_-]{32}$/);
});

test('versions', async () => {
	assert.equal((await ask(alice, 'secret_put', { project_id, name: 'D', value: 'dd', cas: 1 })).version, 2);
	const restored = await ask(alice, 'secret_rollback', { project_id, name: 'D', version: 1, cas: 2 });
	assert.equal(restored.version, 3);
	const versions = await ask(alice, 'secret_versions', { project_id, name: 'D' });
	const current = versions.map(({ version, is_current }) => [version, is_current]);
	assert.deepEqual(current, [[3, true], [2, false], [1, false]]);
	assert.equal(await ask(alice, 'secret_get', { project_id, name: 'D', version: 2 }), 'dd');
	assert.equal(await ask(alice, 'secret_get', { project_id, name: 'D' }), 'd');
});

test('lists and their pages', async () => {
	const seeded = ['SMTP_PASSWORD', 'STRIPE_SECRET_KEY', 'WEBHOOK_SIGNING_KEY'];
	const names = async (args: Partial<Functions['secret_list']['Args']>) =>
		(await ask(alice, 'secret_list', { project_id, ...args })).map(({ name }) => name);
	assert.deepEqual(await names({}), ['A', 'B', 'C', 'D', 'E', ...seeded]);
	assert.deepEqual(await names({ after: 'A', page_size: 2 }), ['B', 'C']);
	assert.deepEqual(await names({ search: 'KEY' }), seeded.slice(1));
	assert.deepEqual(await names({ search: 'nothing like it' }), []);

	const deleted = await ask(alice, 'secret_delete', { project_id, name: 'E' });
	assert.equal(deleted.status, 'deleted');
	assert.ok(Date.parse(deleted.purge_after!) > Date.parse(deleted.deleted_at!));
	assert.deepEqual(await names({ include_deleted: true, after: 'D', page_size: 1 }), ['E']);
	assert.deepEqual(await names({ after: 'D', page_size: 1 }), seeded.slice(0, 1));
	assert.equal((await ask(alice, 'secret_undelete', { project_id, name: 'E' })).deleted_at, null);
	assert.equal(await ask(alice, 'secret_purge', { project_id, name: 'E', confirm: 'E' }), null);
	assert.deepEqual(await names({ include_deleted: true, after: 'D', page_size: 1 }), seeded.slice(0, 1));
});

test('expiry', async () => {
	const expires_at = new Date(Date.now() + 3_600_000).toISOString();
	const expiring = await ask(alice, 'secret_expire', { project_id, name: 'D', expires_at });
	assert.equal(Date.parse(expiring.expires_at!), Date.parse(expires_at));
	const due = await ask(alice, 'secret_due', { project_id, within: '2 hours' });
	assert.deepEqual(due, [{ project_id, name: 'D', version: 3, expires_at: expiring.expires_at, status: 'due' }]);
	// Without a project: of all that the caller may see. A worker sees all.
	assert.deepEqual((await ask(service, 'secret_due', {})).map(({ name }) => name).sort(), ['D', 'SMTP_PASSWORD']);
	assert.deepEqual(await ask(service, 'secret_due', { within: '0 seconds' }), []);
});

test('many at once, each with its status', async () => {
	await ask(alice, 'secret_put_bytes', { project_id, name: 'BINARY', value: '\\xff' });
	await ask(alice, 'secret_put', { project_id, name: 'DELETED', value: 'x' });
	await ask(alice, 'secret_delete', { project_id, name: 'DELETED' });
	await ask(alice, 'secret_put', { project_id, name: 'EXPIRED', value: 'x' });
	await ask(alice, 'secret_expire', { project_id, name: 'EXPIRED', expires_at: new Date().toISOString() });
	await ask(alice, 'secret_put', { project_id, name: 'TAMPERED', value: 'x' });
	await stack.sql(`SET session_replication_role = replica;
		UPDATE meshhook_secrets.project_secrets SET current_version = 2 WHERE name = 'TAMPERED'`);
	const names = ['A', 'BINARY', 'DELETED', 'EXPIRED', 'TAMPERED', 'NONE'];
	const answers = await ask(service, 'secret_get_many', { project_id, names, purpose: 'run' });
	assert.deepEqual(answers.map(({ name, status, value }) => [name, status, value]), [
		['A', 'ok', 'first'], ['BINARY', 'binary', null], ['DELETED', 'deleted', null], ['EXPIRED', 'expired', null],
		['TAMPERED', 'corrupted', null], ['NONE', 'not_found', null],
	]);
	assert.deepEqual(answers.at(-1), { name: 'NONE', value: null, version: null, status: 'not_found' });
	assert.deepEqual(await ask(alice, 'secret_get_many', { project_id, names: [] }), []);
	const all = await ask(alice, 'secret_get_many', { project_id });
	assert.equal(all.find(({ name }) => name === 'A')?.value, 'first');
	await ask(service, 'secret_purge', { project_id, name: 'TAMPERED', confirm: 'TAMPERED' });
});

test('KEKs are rotated', async () => {
	// Slow enough that the rotation is seen, and that some of it is left to do by hand.
	await stack.sql('ALTER SYSTEM SET meshhook_secrets.rewrap_batch_size = 1');
	await stack.sql('ALTER SYSTEM SET meshhook_secrets.rewrap_pause = 60000');
	await stack.sql('SELECT pg_reload_conf()');
	assert.equal(await ask(operator, 'kek_configure', { auto_rotate_period: '90 days' }), null);
	const rotation = await ask(operator, 'kek_rotate', { reason: 'quarterly' });
	assert.deepEqual([rotation.reason, rotation.total, rotation.finished_at], ['quarterly', 2, null]);
	const [current, old] = await ask(operator, 'kek_status', {});
	assert.deepEqual([old.status, current.status, current.kek_id], ['retiring', 'active', rotation.kek_id]);
	assert.ok(current.next_rotation && current.remaining! + current.done! === 2);
	await until(async () => (await ask(operator, 'kek_rewrap', { batch_size: 100 }))[0].remaining === 0);
	await until(async () => (await ask(operator, 'kek_status', {}))[1].status === 'retired');
	assert.equal(await ask(operator, 'kek_configure', {}), null);
	const [checked] = await ask(operator, 'kek_verify', { kek_id: rotation.kek_id, deep: true });
	assert.deepEqual([checked.wraps, checked.good, checked.bad, checked.problem], [2, 2, 0, null]);
	assert.equal((await ask(operator, 'kek_verify', {})).length, 2);
});

test('KEKs come and go', async () => {
	const kek_id = await ask(operator, 'kek_generate', {});
	assert.equal(await ask(operator, 'kek_mark_compromised', { kek_id: 1 }), 'compromised');
	const destroyed_at = await ask(operator, 'kek_destroy', { kek_id: 1, confirm: '1', wait: '10 days' });
	assert.ok(Math.abs(Date.parse(destroyed_at) - Date.now() - 10 * 86_400_000) < 60_000);
	assert.equal(await ask(operator, 'kek_cancel_destroy', { kek_id: 1 }), 'disabled');
	assert.equal(await ask(operator, 'kek_enable', { kek_id: 1 }), 'retired');
	assert.equal(await ask(operator, 'kek_disable', { kek_id: 1 }), 'disabled');
	assert.equal((await ask(operator, 'kek_status', {}))[0].kek_id, kek_id);
});

test('data keys are replaced', async () => {
	assert.equal(await ask(operator, 'dek_rotate', { project_id }), 2);
	assert.ok((await ask(operator, 'secret_reencrypt', { project_id })) > 5);
	assert.equal(await ask(alice, 'secret_get', { project_id, name: 'A' }), 'first');
});

test('the root key is rotated', async () => {
	const file = `${stack.home}/server/root.key`;
	writeFileSync(file, `${randomBytes(32).toString('hex')}\n${readFileSync(file, 'utf8')}`);
	await stack.sql('SELECT pg_reload_conf()');
	await until(async () => (await ask(operator, 'root_key_status', {})).length === 2);
	const rotated = await ask(operator, 'root_key_rotate', {});
	assert.deepEqual(rotated.map(({ kek_id }) => kek_id).sort(), [1, 2, 3]);
	const current = (await ask(operator, 'root_key_status', {})).find(({ is_current }) => is_current)!;
	assert.deepEqual(current, { root_key_id: rotated[0].root_key_id, is_current: true, is_loaded: true, keks: 3 });
	const verified = await ask(operator, 'root_key_verify', {});
	assert.deepEqual(verified.find(({ root_key_id }) => root_key_id === current.root_key_id),
		{ root_key_id: current.root_key_id, keks: 3, good: 3, problem: null });
});

test('sealing', async () => {
	assert.equal(await ask(operator, 'seal', { project_id }), null);
	assert.equal((await ask(operator, 'seal_status', {}))[0].sealed_projects, 1);
	const many = await ask(alice, 'secret_get_many', { project_id, names: ['A', 'NONE'] });
	assert.deepEqual(many.map(({ status }) => status), ['sealed', 'not_found']);
	assert.equal(await ask(operator, 'unseal', { project_id }), null);
	assert.equal(await ask(operator, 'seal', {}), null);
	const [status] = await ask(operator, 'seal_status', {});
	assert.ok(status.sealed && status.cause && status.remedy);
	assert.equal((await ask(operator, 'health', {}))[0].state, 'sealed');
	assert.equal(await ask(operator, 'unseal', {}), null);
	// Degraded until the records of the time in between are sealed, too.
	await until(async () => (await ask(operator, 'health', {}))[0].state === 'ok');
});

test('a member asks whether the project can be used', async () => {
	const open = [{ sealed: false, cause: null, remedy: null }];
	assert.deepEqual(await ask(alice, 'project_seal_status', { project_id }), open);
	await ask(operator, 'seal', { project_id });
	const [status] = await ask(alice, 'project_seal_status', { project_id });
	const { error } = await alice.rpc('secret_get', { project_id, name: 'A' });
	assert.deepEqual(status, { sealed: true, cause: error?.details, remedy: error?.hint });
	await ask(operator, 'unseal', { project_id });
	assert.deepEqual(await ask(service, 'project_seal_status', { project_id }), open);
});

test('how things are', async () => {
	assert.match(await ask(operator, 'library_version', {}), /^\d+\.\d+\.\d+$/);
	const metrics = await ask(operator, 'metrics', {});
	assert.ok(metrics.find(({ name }) => name === 'meshhook_secrets_puts_total')!.value! > 10);
	assert.ok((await ask(operator, 'doctor', {})).some(({ finding }) => finding === 'root_key_copy'));
});

test('the audit log', async () => {
	const since = new Date(Date.now() - 600_000).toISOString();
	const until = new Date(Date.now() + 600_000).toISOString();
	const gets =
		{ project_id, since, until, action: 'secret_get', outcome: 'ok', actor: 'authenticator', name: 'D' } as const;
	const found = await ask(operator, 'audit_search', { ...gets, page_size: 1 });
	assert.deepEqual(found.map(({ name, version, claimed_sub, sqlstate }) => [name, version, claimed_sub, sqlstate]),
		[['D', 3, ALICE_ID, null]]);
	const before = await ask(operator, 'audit_search', { ...gets, after: found[0].id! });
	assert.deepEqual(before.map(({ version }) => version), [2]);
	// Of their own projects users see the records, and of no others.
	assert.deepEqual(await ask(alice, 'audit_search', { ...gets, page_size: 1 }), found);
	assert.ok((await ask(alice, 'audit_search', {})).every((record) => record.project_id === SHOP));

	const [whole] = await ask(operator, 'audit_verify', {});
	assert.deepEqual([whole.ok, whole.problems], [true, []]);
	const [part] = await ask(operator, 'audit_verify', { from_seal: whole.first_seal!, to_seal: whole.first_seal! });
	assert.equal(part.seals, 1);
	await stack.sql("SELECT meshhook_secrets.audit_make_partition('2020-01-01')");
	const pruned = await ask(operator, 'audit_prune', { before: '2021-01-01T00:00:00Z' });
	assert.deepEqual(pruned.map(({ records }) => records), [0]);
	await stack.sql(`SET session_replication_role = replica;
		UPDATE meshhook_secrets.audit_log SET name = 'E' WHERE name = 'D'`);
	const [tampered] = await ask(operator, 'audit_verify', {});
	assert.ok(!tampered.ok && tampered.problems.length > 0);
});

test('every function was called with every argument', () => {
	const missed = new Set([...catalog.values()].filter(({ callable, name }) => callable && name !== 'member_projects')
		.flatMap(({ name, arguments: args }) => [`${name}()`, ...args.map((argument) => `${name}(${argument.name})`)]));
	for (const { name, args } of calls) {
		missed.delete(`${name}()`);
		for (const argument of Object.keys(args)) missed.delete(`${name}(${argument})`);
	}
	assert.deepEqual([...missed], []);
});

test('every call and every answer is what the types say', () => {
	const lines = calls.flatMap(({ name, args, answer }) => [
		`(${JSON.stringify(args)}) satisfies Functions['${name}']['Args'];\n`,
		`(${JSON.stringify(answer)}) satisfies Functions['${name}']['Returns'];\n`,
	]);
	const head = `import type { MeshhookSecrets } from './meshhook-secrets.types.ts';
		type Functions = MeshhookSecrets['meshhook_secrets']['Functions'];\n`;
	assert.deepEqual(compile({ 'meshhook-secrets.types.ts': TYPES, 'calls.ts': head + lines.join('') }), []);
});
