// The edge functions' pure parts: how values enter a request, and leave an answer. Random, with a seed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Failure } from '../../examples/supabase/functions/_shared/errors.ts';
import { scrub } from '../../examples/supabase/functions/_shared/scrub.ts';
import { bytesOf, fill, inJson, inQuery, namesIn } from '../../examples/supabase/functions/_shared/template.ts';
import { allowedHosts, isAllowedHost, isAllowedScheme } from '../../examples/supabase/functions/run-step/hosts.ts';
import { fillStep, namesOf, readStep } from '../../examples/supabase/functions/run-step/step.ts';

const SEED = Number(process.env.SEED ?? 20261122);
const PIECES = [
	'a', 'Z', '0', ' ', '"', "'", '\\', '\n', '\r', '\t', '%', '%41', '&', '=', '+', '#', '?', '/', '<', '>', ';',
	'$&', '$1', '{{', '}}', '{{ secrets.A }}', '\\u0041', 'é', 'ß', '漢', '😀', '\u2028', '\0', '\u007f',
];

/** mulberry32: the same numbers for the same seed. */
function numbers(seed: number): () => number {
	return () => {
		seed = (seed + 0x6d2b79f5) | 0;
		let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
		return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
	};
}

function forRandomValues(check: (value: string, random: (below: number) => number) => void): void {
	const next = numbers(SEED);
	const random = (below: number) => Math.floor(next() * below);
	for (let round = 0; round < 300; round++) {
		const value = Array.from({ length: 1 + random(12) }, () => PIECES[random(PIECES.length)]).join('');
		try {
			check(value, random);
		} catch (error) {
			throw new Error(`SEED=${SEED}, round ${round}, value ${JSON.stringify(value)}`, { cause: error });
		}
	}
}

const request = (more: object) => ({ method: 'POST', url: 'https://api.example.com/v1', ...more });
const failsWith = (code: string) => (error: unknown) => error instanceof Failure && error.code === code;

test('names are found, each once, wherever they may stand', () => {
	const text = '{{secrets.A}} {{ secrets.b-2.c }} {{  secrets.A\t}} {{ secret.X }} { secrets.Y } {{ steps.Z }}';
	assert.deepEqual(namesIn(text), ['A', 'b-2.c', 'A']);
	const step = readStep(request({
		url: 'https://api.example.com/v1?k={{ secrets.A }}&flag',
		headers: { authorization: 'Bearer {{ secrets.B }}', 'x-two': '{{ secrets.A }}{{ secrets.C }}' },
		body: { deep: [{ er: 'x{{ secrets.D }}y' }] },
	}));
	assert.deepEqual(namesOf(step), ['A', 'B', 'C', 'D']);
	// Not a legal name, but a placeholder: the database says so, instead of it being sent as it is.
	assert.deepEqual(namesIn('{{ secrets.no such name }}'), ['no such name']);
});

// By its limit of time: a search that goes back takes hours.
test('looking for names takes no long time', { timeout: 60_000 }, () => {
	const text = '{{' + ' '.repeat(1e6) + 'secrets.A' + ' '.repeat(1e6) + '{{secrets.'.repeat(1e5);
	assert.deepEqual(namesIn(`${text}{{ secrets.B }}`).at(-1), 'B');
});

test('a value is one string of the JSON body, whatever is in it', () => {
	forRandomValues((value) => {
		const values = new Map([['A', value], ['B', 'other']]);
		for (const body of [{ a: 'x{{ secrets.A }}y', n: 1 }, '{"a": "x{{ secrets.A }}y", "n": 1}']) {
			const headers = { 'content-type': 'application/vnd.api+json; x=y' };
			const filled = fillStep(readStep(request({ headers, body })), values);
			assert.deepEqual(JSON.parse(filled.body!), { a: `x${value}y`, n: 1 });
		}
	});
	// Numbers beyond doubles stay as they were written.
	const text = '{"id": 12345678901234567890, "a": "{{ secrets.A }}"}';
	const step = readStep(request({ headers: { 'content-type': 'application/json' }, body: text }));
	const filled = fillStep(step, new Map([['A', '"']]));
	assert.equal(filled.body, '{"id": 12345678901234567890, "a": "\\""}');
});

test('a value is one parameter of the query, and one field of a form', () => {
	forRandomValues((value) => {
		const step = readStep(request({
			url: 'https://api.example.com/v1?first=1&key=x{{ secrets.A }}&last=%C3%A9+{{secrets.A}}&flag#part',
			headers: { 'content-type': 'application/x-www-form-urlencoded' },
			body: 'a={{ secrets.A }}&b=2',
		}));
		const { url, body } = fillStep(step, new Map([['A', value]]));
		const expected = [['first', '1'], ['key', `x${value}`], ['last', `é ${value}`], ['flag', '']];
		assert.deepEqual([...url.searchParams], expected);
		assert.equal(url.origin + url.pathname + url.hash, 'https://api.example.com/v1');
		assert.deepEqual([...new URLSearchParams(body!)], [['a', value], ['b', '2']]);
	});
});

test('a value stays inside of its header, as UTF-8', () => {
	forRandomValues((value) => {
		const step = readStep(request({ headers: { 'x-key': '<{{ secrets.A }}>' } }));
		const fillIn = () => fillStep(step, new Map([['A', value]])).headers;
		if (/[\0-\x08\x0a-\x1f\x7f]/.test(value)) assert.throws(fillIn, failsWith('secret_unusable'));
		else {
			assert.deepEqual([...fillIn().keys()], ['x-key']);
			assert.equal(Buffer.from(fillIn().get('x-key')!, 'latin1').toString(), `<${value}>`);
		}
	});
});

test('the message about an unusable value names it and does not tell it', () => {
	const step = readStep(request({ headers: { 'x-key': '{{ secrets.A }}' } }));
	assert.throws(() => fillStep(step, new Map([['A', 'canary\r\nx: y']])), (error: Failure) => {
		assert.equal(error.detail, 'A has line breaks or control characters.');
		return !JSON.stringify({ ...error, message: error.message }).includes('canary');
	});
});

test('XML and plain text', () => {
	const body = (type: string) => {
		const step = readStep(request({ headers: { 'Content-Type': type }, body: '<a b="{{ secrets.A }}"/>' }));
		return fillStep(step, new Map([['A', `<"&'>`]])).body;
	};
	assert.equal(body('application/soap+xml'), '<a b="&#60;&#34;&#38;&#39;&#62;"/>');
	assert.equal(body('text/plain'), `<a b="<"&'>"/>`);
});

test('values are not looked through for placeholders', () => {
	assert.equal(fill('{{ secrets.A }}', new Map([['A', '{{ secrets.B }}'], ['B', 'no']]), inJson), '{{ secrets.B }}');
	assert.equal(fill('{{ secrets.A }}', new Map([['A', "$&$'"]]), inQuery), '%24%26%24%27');
});

test('requests that are refused', () => {
	const refused: object[] = [
		{ method: 'CONNECT' }, { method: 'GET', body: {} }, { url: 'nowhere' }, { url: 5 }, { urll: 'x' },
		// Secrets that would choose where to go.
		{ url: 'https://{{ secrets.A }}/' }, { url: 'https://{{secrets.A}}.example.com/' },
		{ url: '{{ secrets.A }}://api.example.com/' },
		{ url: 'https://api.example.com:{{ secrets.A }}/' }, { url: 'https://{{secrets.A}}@api.example.com/' },
		{ url: 'https://api.example.com/{{ secrets.A }}' }, { url: 'https://api.example.com/?{{ secrets.A }}=x' },
		{ url: 'https://api.example.com/?{{ secrets.A }}' }, { url: 'https://api.example.com/#?a={{ secrets.A }}' },
		{ url: 'https://api.example.com/{{ secrets.A }}?a={{ secrets.A }}' },
		{ url: 'https://user:password@api.example.com/' },
		{ headers: { host: 'else.example.com' } }, { headers: { 'Transfer-Encoding': 'chunked' } },
		{ headers: { 'a b': 'x' } },
		{ headers: { a: 'x\r\nb: y' } }, { headers: { a: 5 } }, { headers: { '{{ secrets.A }}': 'x' } }, { headers: [] },
		{ headers: { 'content-type': 'text/plain', 'Content-Type': 'application/json' }, body: '{}' },
		{ headers: { 'content-type': '{{ secrets.A }}' }, body: '{}' },
		{ body: 'text of no type' }, { headers: { 'content-type': 'text/plain' }, body: {} },
		// Outside of a string, a value could be any JSON.
		{ headers: { 'content-type': 'application/json' }, body: '{"a": {{ secrets.A }}}' },
	];
	for (const more of refused) assert.throws(() => readStep(request(more)), failsWith('22023'), JSON.stringify(more));
	for (const value of [null, [], 'x']) assert.throws(() => readStep(value), failsWith('22023'));
});

test('hosts', () => {
	const allowed = allowedHosts(' API.example.com, *.hooks.example.com,localhost:8080,, *');
	const is = (url: string) => isAllowedHost(new URL(url), allowed);
	for (const url of [
		'https://api.example.com/', 'https://API.EXAMPLE.COM:443/x', 'https://a.hooks.example.com',
		'https://a.b.hooks.example.com', 'http://localhost:8080',
	]) assert.ok(is(url), url);
	for (const url of [
		'https://example.com', 'https://api.example.com.evil.test', 'https://evil.test/api.example.com',
		'https://evil.test?api.example.com', 'https://hooks.example.com', 'https://evilhooks.example.com',
		'https://api.example.com:8443', 'https://api.example.com.', 'https://evil.test#.hooks.example.com',
		'https://evil.test\\.hooks.example.com', 'http://localhost', 'https://169.254.169.254', 'https://[::1]:8080',
	]) assert.ok(!is(url), url);
	assert.ok(!isAllowedHost(new URL('https://api.example.com'), allowedHosts('')), 'none without a list');

	const scheme = (url: string, allowHttp: boolean) => isAllowedScheme(new URL(url), allowHttp);
	for (const url of ['https://a.test', 'http://localhost:1', 'http://[::1]']) assert.ok(scheme(url, true), url);
	for (const url of ['http://a.test', 'http://localhost.a.test', 'file:///etc/passwd', 'ftp://localhost', 'data:,x']) {
		assert.ok(!scheme(url, true), url);
	}
	assert.ok(scheme('https://a.test', false) && !scheme('http://localhost', false));
});

const json = (text: string) => JSON.stringify(text).slice(1, -1);
const form = (text: string) => new URLSearchParams({ a: text }).toString().slice(2);
const ascii = (text: string) =>
	json(text).replace(/[\u0080-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
const html = (text: string) =>
	text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
const url = encodeURIComponent;
const ECHOES: Record<string, (text: string) => string> = {
	json, form, url, html,
	'as it is': (text) => text,
	'a header': (text) => text.trim(),
	'ascii json': ascii,
	'php json': (text) => json(text).replaceAll('/', '\\/'),
	'json in json': (text) => json(json(text)),
	'a whole url': encodeURI,
	'a parsed url': (text) => new URL(`https://x/?a=${url(text)}`).search.slice(3),
	'a url in lower case': (text) => url(text).replace(/%../g, (byte) => byte.toLowerCase()),
	'a url in a url': (text) => url(url(text)),
	'a url in json': (text) => json(url(text)),
	'json in html': (text) => html(json(text)),
	'json in a form': (text) => form(json(text)),
	'a header in json': (text) => json(bytesOf(text)),
	'a header in json in json in a form': (text) => form(json(json(bytesOf(text)))),
};
const base64 = (text: string) => Buffer.from(text).toString('base64');
const base64url = (text: string) => Buffer.from(text).toString('base64url');

test('answers that echo a value lose it, in every encoding', () => {
	forRandomValues((random, number) => {
		const value = `${random}K7q9${random}x-Canary${random}`;
		const around = () => 'ghij'.repeat(3).slice(0, number(8));
		for (const [name, echo] of Object.entries(ECHOES)) {
			const [before, after] = [around(), around()];
			assert.equal(scrub(before + echo(value) + after, [value]), `${before}***${after}`, name);
		}
		for (const encode of [base64, base64url]) {
			for (const text of [value, json(value)]) {
				const encoded = encode(`${around()}:${text}:${around()}`);
				const scrubbed = scrub(encoded, [value]);
				// At most the characters at the two ends share bits with what stands around.
				const whole = Math.floor((Buffer.byteLength(text) * 8) / 6) - 2;
				assert.ok(scrubbed.length <= encoded.length - whole + 3, scrubbed);
				assert.ok(scrubbed.includes('***'));
			}
		}
	});
});

test('several values, values in values, overlapping values', () => {
	assert.equal(scrub('a secret-1 and secret-12 and -12', ['secret-1', 'secret-12']), 'a *** and *** and -12');
	assert.equal(scrub('xabcdefx', ['abcd', 'cdef']), 'x***x');
	assert.equal(scrub('aaaa aaaaa', ['aaa']), '*** ***');
	assert.equal(scrub('unchanged', ['', ' ', 'other']), 'unchanged');
	assert.equal(scrub('onetwo', ['one', 'two']), '******');
});

// By its limit of time: a search that is quadratic takes minutes.
test('a long value and a long answer take no long time', { timeout: 60_000 }, () => {
	const value = Array.from({ length: 16_000 }, (_, i) => `${i}/é`).join('');
	assert.ok(scrub(json(json(value)) + 'x'.repeat(900_000), [value]).startsWith('***x'));
	assert.equal(scrub(`${'a'.repeat(2 ** 20)}b`, ['a'.repeat(65_536)]), '***b');
	assert.equal(scrub('ab'.repeat(2 ** 19), ['ab'.repeat(32_768), `${'ba'.repeat(100)}b`]), '***');
	assert.equal(scrub('abaXabab', ['aba']), '***X***b');
});

test('text that is labelled as another encoding is recognised', () => {
	const value = 'Straße-Émile-42x';
	assert.equal(scrub(new TextDecoder('windows-1252').decode(new TextEncoder().encode(value)), [value]), '***');
});
