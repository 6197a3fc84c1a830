// The edge functions of examples/supabase: real Deno, the real database, and an API that records what reaches it.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { copyFunctions, nobody, Target } from './functions-support.ts';
import { ALICE, asService, BLOG, clientOf, OPERATOR, SHOP, signedIn, startStack } from './support.ts';

/** In every value of these tests, and in no log. */
const CANARY = 'CanaryK7q9';
/** What needs escaping somewhere, except line breaks. */
const NASTY = `${CANARY} "quoted" \\back\\ %41&b=c;+#?/ <é漢😀> {{ secrets.PLAIN }} $& 'end'`;
const LINES = `-----BEGIN ${CANARY}-----\nline "two"\r\n\tthree\n-----END-----\n`;

const stack = await startStack();
// Everything that PostgreSQL can be made to log.
await stack.sql("ALTER SYSTEM SET log_statement = 'all'");
await stack.sql('ALTER SYSTEM SET log_min_duration_statement = 0');
await stack.sql('ALTER SYSTEM SET log_parameter_max_length_on_error = -1');
await stack.sql('SELECT pg_reload_conf()');
const [target, elsewhere, down] = [await new Target().start(), await new Target().start(), await nobody()];
const functions = await copyFunctions(stack);
const api = new URL(stack.supabaseUrl).host;
const settings = { SUPABASE_URL: stack.supabaseUrl, SUPABASE_ANON_KEY: stack.anonKey };
// `elsewhere` could be reached: what keeps steps from it is the function.
const reachable = [api, target.host, elsewhere.host, down];
const runSettings = {
	...settings,
	RUN_STEP_ALLOWED_HOSTS: `${target.host}, ${down}`,
	RUN_STEP_ALLOW_HTTP: 'true',
	RUN_STEP_TIMEOUT_MS: '1500',
};
const runStep = await functions.serve('run-step', reachable, runSettings);
const kekRotate = await functions.serve('kek-rotate', [api], settings);

const service = asService(stack);
await put('PLAIN', `${CANARY}-plain`);
await put('NASTY', NASTY);
await put('LINES', LINES);
await put('EXPIRED', `${CANARY}-expired`);
await service.rpc('secret_expire', { project_id: SHOP, name: 'EXPIRED', expires_at: '2026-01-01T00:00:00Z' });
await put('DELETED', `${CANARY}-deleted`);
await service.rpc('secret_delete', { project_id: SHOP, name: 'DELETED' });
await service.rpc('secret_put_bytes', { project_id: SHOP, name: 'BINARY', value: '\\xff00' });
await service.rpc('secret_put', { project_id: BLOG, name: 'BOBS', value: `${CANARY}-bobs` });

async function put(name: string, value: string) {
	const { error } = await service.rpc('secret_put', { project_id: SHOP, name, value });
	assert.equal(error, null);
}

/** What a function answers. */
async function call(url: string, token: string | null, body: unknown) {
	const response = await fetch(url, {
		method: 'POST',
		headers: { 'content-type': 'application/json', ...(token === null ? {} : { authorization: `Bearer ${token}` }) },
		body: typeof body === 'string' ? body : JSON.stringify(body),
	});
	return { status: response.status, json: await response.json() };
}

function step(more: object, project_id = SHOP) {
	const request = { method: 'POST', url: `http://${target.host}/`, ...more };
	return call(runStep, stack.serviceRoleKey, { project_id, request });
}

/** It fails with this, after so many requests to APIs, and no value is in the answer. */
async function fails(answer: ReturnType<typeof call>, status: number, code: string, requests = 0) {
	const before = target.received.length + elsewhere.received.length;
	const { status: got, json } = await answer;
	assert.deepEqual([got, json.error?.code], [status, code], JSON.stringify(json));
	assert.deepEqual(Object.keys(json.error), ['code', 'message', 'detail', 'hint']);
	assert.equal(target.received.length + elsewhere.received.length - before, requests);
	assert.equal(leak(JSON.stringify(json)), undefined);
	return json.error;
}

/** Where the canary is in a text, as it is or in base64. */
function leak(text: string): string | undefined {
	const pieces = ['', '.', '..'].map((before) => Buffer.from(before + CANARY).toString('base64').slice(4, -4));
	const found = [CANARY, ...pieces].find((form) => text.includes(form));
	return found && text.slice(Math.max(0, text.indexOf(found) - 100), text.indexOf(found) + 100);
}

const now = () => stack.sql('SELECT clock_timestamp()');
/** The records of reveals since then. */
const records = (since: string) => stack.sql(`
	SELECT outcome, name, purpose, actor_role, project_id FROM meshhook_secrets.audit_search(action => 'secret_get_many')
	WHERE time > '${since}' ORDER BY name COLLATE "C"`);
/** Records of one call have the same time. */
const calls = (since: string) => stack.sql(`
	SELECT count(DISTINCT time) FROM meshhook_secrets.audit_search(action => 'secret_get_many') WHERE time > '${since}'`);

describe('run-step', () => {
	test('secrets reach the API in headers, the query and a JSON body, escaped for their place', async () => {
		const { status, json } = await step({
			url: `http://${target.host}/v1/items?key={{ secrets.NASTY }}&fixed=a%20b&lines={{secrets.LINES}}`,
			headers: { Authorization: 'Bearer {{ secrets.PLAIN }}', 'X-Nasty': '{{ secrets.NASTY }}' },
			body: { nasty: '{{ secrets.NASTY }}', lines: ['x{{ secrets.LINES }}y'], number: 1 },
		});
		assert.equal(status, 200, JSON.stringify(json));
		assert.deepEqual(json, { status: 200, headers: { 'content-type': 'application/json' }, body: '{"ok": true}' });
		const got = target.received.at(-1)!;
		assert.equal(`${got.method} ${got.path}`, 'POST /v1/items');
		assert.deepEqual([...got.query], [['key', NASTY], ['fixed', 'a b'], ['lines', LINES]]);
		assert.equal(got.headers.authorization, `Bearer ${CANARY}-plain`);
		assert.equal(Buffer.from(got.headers['x-nasty'] as string, 'latin1').toString(), NASTY);
		assert.equal(got.headers['content-type'], 'application/json');
		assert.deepEqual(JSON.parse(got.body), { nasty: NASTY, lines: [`x${LINES}y`], number: 1 });
	});

	test('in a form, in plain text, and with a JSON text for a body', async () => {
		const send = async (type: string, body: string) => {
			assert.equal((await step({ headers: { 'content-type': type }, body })).status, 200);
			return target.received.at(-1)!.body;
		};
		const form = await send('application/x-www-form-urlencoded', 'a=1&b={{ secrets.NASTY }}');
		assert.deepEqual([...new URLSearchParams(form)], [['a', '1'], ['b', NASTY]]);
		assert.equal(await send('text/plain', '<{{ secrets.LINES }}>'), `<${LINES}>`);
		assert.deepEqual(JSON.parse(await send('application/json', '["{{ secrets.LINES }}"]')), [LINES]);
	});

	test('one call reveals all, with a record for each secret', async () => {
		const since = await now();
		const { status } = await step({
			url: `http://${target.host}/?a={{ secrets.PLAIN }}`,
			headers: { a: '{{ secrets.PLAIN }}', b: '{{ secrets.NASTY }}{{ secrets.PLAIN }}' },
			body: { c: '{{ secrets.LINES }}' },
		});
		assert.equal(status, 200);
		const lines = ['LINES', 'NASTY', 'PLAIN'].map((name) => `ok|${name}|run|service_role|${SHOP}`);
		assert.equal(await records(since), lines.join('\n'));
		assert.equal(await calls(since), '1');
	});

	test('a step without secrets runs, and the database decides on it too', async () => {
		assert.equal((await step({ body: { a: 1 } })).status, 200);
		assert.equal(target.received.at(-1)!.body, '{"a":1}');
		await fails(step({}, '00000000-0000-4000-8000-000000000000'), 403, '42501');
		await fails(step({}, 'no uuid'), 400, '22P02');
	});

	test('a secret that cannot be used: the error names it, and nothing is sent', async () => {
		const names = ['PLAIN', 'MISSING', 'EXPIRED', 'DELETED', 'BINARY', 'BOBS'];
		const body = names.map((name) => `{{ secrets.${name} }}`);
		const error = await fails(step({ body }), 424, 'secrets_unavailable');
		assert.deepEqual(error.detail.split(', ').sort(), [
			'BINARY: binary', 'BOBS: not_found', 'DELETED: deleted', 'EXPIRED: expired', 'MISSING: not_found',
		]);
		await fails(step({ headers: { a: '{{ secrets.not legal }}' } }), 400, '22023');
		const unusable = await fails(step({ headers: { a: '{{ secrets.LINES }}' } }), 422, 'secret_unusable');
		assert.match(unusable.detail, /^LINES /);
	});

	test('sealed: the project, the server', async () => {
		const use = () => step({ headers: { a: '{{ secrets.PLAIN }}' } });
		for (const what of [`'${SHOP}'`, '']) {
			await stack.sql(`SELECT meshhook_secrets.seal(${what})`);
			try {
				const error = await fails(use(), 503, 'PT503');
				assert.ok(error.message && error.detail && error.hint, JSON.stringify(error));
			} finally {
				await stack.sql(`SELECT meshhook_secrets.unseal(${what})`);
			}
			assert.equal((await use()).status, 200);
		}
	});

	test('other roles are refused, members too, and forged tokens', async () => {
		const tokens: [string | null, number, string][] = [
			[null, 401, '42501'], ['nonsense', 401, '42501'], [stack.anonKey, 401, '42501'],
			[(await stack.auth.session(ALICE)).access_token, 403, '42501'],
			[(await stack.auth.session(OPERATOR)).access_token, 403, '42501'],
		];
		const [header, payload, signature] = stack.serviceRoleKey.split('.');
		tokens.push([`${header}.${payload}.${signature.split('').reverse().join('')}`, 401, 'PGRST301']);
		tokens.push([`${btoa('{"alg":"none"}')}.${payload}.`, 401, 'PGRST301']);
		tokens.push([stack.token({ role: 'service_role', exp: 1 }), 401, 'PGRST303']);
		for (const [token, status, code] of tokens) {
			for (const text of ['{{ secrets.PLAIN }}', '{{ secrets.BOBS }}', 'no secret']) {
				const request = { method: 'POST', url: `http://${target.host}/`, body: { text } };
				for (const project_id of [SHOP, BLOG]) await fails(call(runStep, token, { project_id, request }), status, code);
			}
		}
		// Nor past the function.
		const { error } = await (await signedIn(stack, ALICE)).rpc('secret_get_many', { project_id: BLOG, names: ['BOBS'] });
		assert.equal(error?.code, '42501');
	});

	test('other hosts are refused before anything is revealed', async () => {
		const since = await now();
		const headers = { a: '{{ secrets.PLAIN }}' };
		const hosts = [elsewhere.host, 'localhost', '127.0.0.1', '127.0.0.1:1', `[::1]:${target.host.split(':')[1]}`];
		for (const host of hosts) await fails(step({ url: `http://${host}/`, headers }), 403, 'host_not_allowed');
		for (const host of ['169.254.169.254', `${down.split(':')[0]}.evil.test`]) {
			const error = await fails(step({ url: `https://${host}/?x=${target.host}`, headers }), 403, 'host_not_allowed');
			assert.equal(error.detail, host);
		}
		for (const url of ['file:///etc/passwd', 'http://api.example.com/', 'data:,x']) {
			await fails(step({ url, headers }), 403, 'scheme_not_allowed');
		}
		for (const url of ['http://{{ secrets.PLAIN }}/', `http://${target.host}/{{ secrets.PLAIN }}`]) {
			await fails(step({ url }), 400, '22023');
		}
		assert.equal(await records(since), '');
	});

	test('without a list of hosts nothing is called, nor http without its setting', async () => {
		const none = { ...runSettings, RUN_STEP_ALLOWED_HOSTS: '', RUN_STEP_ALLOW_HTTP: '' };
		const bare = await functions.serve('run-step', reachable, none);
		const get = (url: string) => call(bare, stack.serviceRoleKey, { project_id: SHOP, request: { method: 'GET', url } });
		await fails(get(`https://${target.host}/`), 403, 'host_not_allowed');
		await fails(get(`http://${target.host}/`), 403, 'scheme_not_allowed');
	});

	test('redirects are answered, not followed', async () => {
		const headers = { authorization: 'Bearer {{ secrets.PLAIN }}', b: '{{ secrets.NASTY }}' };
		for (const to of [elsewhere.host, target.host]) {
			const sent = target.received.length;
			const { status, json } = await step({ url: `http://${target.host}/redirect?to=http://${to}/`, headers });
			assert.deepEqual([status, json.status], [200, 307]);
			assert.deepEqual([target.received.length, elsewhere.received.length], [sent + 1, 0]);
			assert.ok(json.headers.location.startsWith(`http://${to}/?`) && json.headers.location.includes('***'));
			assert.equal(leak(JSON.stringify(json)), undefined);
		}
	});

	test('values are taken out of the answer', async () => {
		const { status, json } = await step({
			url: `http://${target.host}/echo?key={{ secrets.NASTY }}&lines={{ secrets.LINES }}`,
			headers: { authorization: 'Bearer {{ secrets.PLAIN }}', b: '{{ secrets.NASTY }}' },
			body: { nasty: '{{ secrets.NASTY }}', lines: '{{ secrets.LINES }}' },
		});
		assert.deepEqual([status, json.status], [200, 418]);
		assert.deepEqual(Object.keys(json.headers).sort(), ['content-type', 'etag', 'location']);
		assert.equal(leak(JSON.stringify(json)), undefined);
		const { all } = JSON.parse(json.body);
		assert.match(all, /^\/echo\?key=\*\*\*&lines=\*\*\*\n.*"authorization":"Bearer \*\*\*","b":"\*\*\*"/);
		assert.ok(all.endsWith('\n{"nasty":"***","lines":"***"}'), all);
		for (const word of ['quoted', 'back', 'END', 'three']) assert.ok(!json.body.includes(word), word);
	});

	test('bodies that are not UTF-8', async () => {
		assert.equal((await step({ url: `http://${target.host}/binary` })).json.body, 'A\ufffdB');
		assert.equal((await step({ url: `http://${target.host}/latin1` })).json.body, 'é');
	});

	test('targets that are down, late, too long or answer garbage', async () => {
		const use = (path: string, host = target.host) => step({
			url: `http://${host}${path}?key={{ secrets.PLAIN }}`,
			headers: { a: '{{ secrets.NASTY }}' },
			body: ['{{ secrets.LINES }}'],
		});
		const error = await fails(use('/', down), 502, 'target_unreachable');
		assert.equal(error.detail, down);
		await fails(use('/garbage'), 502, 'target_unreachable', 1);
		await fails(use('/breaks'), 502, 'target_unreachable', 1);
		await fails(use('/huge'), 502, 'target_answer_too_long', 1);
		for (const path of ['/slow', '/drips']) {
			const start = Date.now();
			await fails(use(path), 504, 'target_timeout', 1);
			assert.ok(Date.now() - start < 4000);
		}
	});

	test('a database that is down, and a setting that is wrong', async () => {
		const body = { project_id: SHOP, request: { method: 'GET', url: `http://${target.host}/` } };
		const cut = await functions.serve('run-step', reachable, { ...runSettings, SUPABASE_URL: `http://${down}` });
		await fails(call(cut, stack.serviceRoleKey, body), 502, 'database_unreachable');
		const wrong = await functions.serve('run-step', reachable, { ...runSettings, RUN_STEP_TIMEOUT_MS: 'soon' });
		await fails(call(wrong, stack.serviceRoleKey, body), 500, 'internal');
	});

	test('requests that are none', async () => {
		for (const body of ['not json', '[]', { request: {} }, { project_id: SHOP, request: {}, purpose: 'x' }]) {
			await fails(call(runStep, stack.serviceRoleKey, body), 400, '22023');
		}
		await fails(step({ method: 'TRACE' }), 400, '22023');
	});
});

describe('kek-rotate', async () => {
	const operator = (await stack.auth.session(OPERATOR)).access_token;
	const rotate = (body: object) => call(kekRotate, operator, body);
	const keks = () => stack.sql('SELECT kek_id, status FROM meshhook_secrets.kek_status() ORDER BY kek_id');

	test('not for others', async () => {
		const before = await keks();
		const alice = (await stack.auth.session(ALICE)).access_token;
		await fails(call(kekRotate, alice, {}), 403, '42501');
		await fails(call(kekRotate, stack.serviceRoleKey, {}), 403, '42501');
		await fails(call(kekRotate, stack.anonKey, {}), 401, '42501');
		await fails(call(kekRotate, null, {}), 401, '42501');
		await fails(call(kekRotate, operator.slice(0, -8) + 'AAAAAAAA', {}), 401, 'PGRST301');
		for (const body of [{ wait_seconds: 61 }, { wait_seconds: -1 }, { wait_seconds: '5' }, { reason: 5 }, { wait: 5 }]) {
			await fails(rotate(body), 400, '22023');
		}
		assert.equal(await keks(), before);
	});

	test('as operator, to the end', async () => {
		const { status, json } = await rotate({ reason: 'a test', wait_seconds: 20 });
		assert.equal(status, 200, JSON.stringify(json));
		const { finished, kek_id, reason, remaining, last_error } = json;
		assert.deepEqual([finished, kek_id, reason, remaining, last_error], [true, 2, 'a test', 0, null]);
		assert.equal(await keks(), '1|retired\n2|active');
		const records = "meshhook_secrets.audit_search(action => 'kek_rotate')";
		const record = await stack.sql(`SELECT actor_role, outcome FROM ${records} LIMIT 1`);
		assert.equal(record, 'meshhook_operator|ok');
	});

	test('as scheduler, whose token is good for nothing else', async () => {
		const token = stack.token({ role: 'meshhook_scheduler', sub: 'scheduler' });
		const answer = await call(kekRotate, token, { reason: 'scheduled', wait_seconds: 20 });
		assert.deepEqual([answer.status, answer.json.finished], [200, true], JSON.stringify(answer.json));
		const scheduler = clientOf(stack, token).schema('meshhook_secrets');
		for (const refused of [
			scheduler.rpc('seal'), scheduler.rpc('kek_disable', { kek_id: 1 }), scheduler.rpc('audit_search'),
			scheduler.rpc('kek_destroy', { kek_id: 1, confirm: '1' }), scheduler.rpc('secret_list', { project_id: SHOP }),
			scheduler.rpc('secret_get', { project_id: SHOP, name: 'PLAIN' }), scheduler.from('project_secrets').select('id'),
		]) {
			assert.equal((await refused).error?.code, '42501');
		}
	});

	test('a rotation that takes longer: its progress, one job however often it is called', async () => {
		await stack.sql(`
			INSERT INTO public.projects (owner, name)
			  SELECT '01a0a000-0000-4000-8000-000000000003', 'p' || n FROM generate_series(1, 100) n;
			SELECT count(s) FROM public.projects p, LATERAL meshhook_secrets.secret_generate(p.id, 'FILLER') s`);
		await stack.sql('ALTER SYSTEM SET meshhook_secrets.rewrap_batch_size = 5');
		await stack.sql('ALTER SYSTEM SET meshhook_secrets.rewrap_pause = 100');
		await stack.sql('SELECT pg_reload_conf()');
		const [one, two] = await Promise.all([rotate({ reason: 'one' }), rotate({ reason: 'two' })]);
		assert.deepEqual([one.status, two.status], [202, 202]);
		assert.deepEqual([one.json.job_id, one.json.reason], [two.json.job_id, two.json.reason]);
		assert.ok(one.json.remaining > 0 && one.json.total >= 100, JSON.stringify(one.json));
		assert.equal(one.json.finished, false);

		const start = Date.now();
		const later = await rotate({ wait_seconds: 1 });
		assert.ok(Date.now() - start >= 1000);
		assert.deepEqual([later.status, later.json.job_id, later.json.finished], [202, one.json.job_id, false]);
		assert.ok(later.json.remaining < one.json.remaining && later.json.done > 0 && later.json.estimated_end);

		const last = await rotate({ wait_seconds: 30 });
		assert.deepEqual([last.status, last.json.job_id, last.json.finished], [200, one.json.job_id, true]);
		assert.equal(last.json.remaining, 0);
		assert.equal(await keks(), '1|retired\n2|retired\n3|retired\n4|active');
	});

	test('sealed', async () => {
		await stack.sql('SELECT meshhook_secrets.seal()');
		try {
			const error = await fails(rotate({}), 503, 'PT503');
			assert.ok(error.detail && error.hint);
		} finally {
			await stack.sql('SELECT meshhook_secrets.unseal()');
		}
	});
});

for (const name of ['run-step', 'kek-rotate']) {
	test(`deno check ${name}, offline`, async () => void (await functions.check(name)));
}

test('no value is in a log, nor in the audit log', async () => {
	const logs = readdirSync(stack.home).filter((name) => name.endsWith('.log'));
	assert.deepEqual(logs.map((name) => name.replace(/-\d+/, '')).sort(), [
		'gateway.log', 'kek-rotate.log', 'run-step.log', 'run-step.log', 'run-step.log', 'run-step.log',
	]);
	const texts = [...logs, 'server/log'].map((name) => readFileSync(`${stack.home}/${name}`, 'utf8'));
	for (const text of texts) assert.equal(leak(text), undefined);
	// These are the logs that are meant, and they do log.
	const logged = texts.join('\n');
	for (const line of [/execute .*secret_get_many/, /Listening on/, /^run-step: \w*Error$/m]) assert.match(logged, line);
	assert.equal(leak(await stack.sql('SELECT * FROM meshhook_secrets.audit_search(page_size => 1000)')), undefined);
});
