// Callers of the JSON API: programs with a token, browsers with a cookie. What they are answered is kept.

import assert from 'node:assert/strict';

export interface Answer {
	status: number;
	body: any;
	headers: Headers;
}
export type Call = (method: string, path: string, body?: unknown, headers?: Record<string, string>) => Promise<Answer>;

/** Everything that any answer but reveal's said, headers too. */
export const heard: string[] = [];

export function caller(url: string, identity: Record<string, string>): Call {
	return async (method, path, body, headers = {}) => {
		const response = await fetch(url + path, {
			method,
			headers: { ...identity, ...(body === undefined ? {} : { 'content-type': 'application/json' }), ...headers },
			body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body),
			redirect: 'manual',
		});
		const text = await response.text();
		if (!path.endsWith('/reveal')) heard.push(JSON.stringify([...response.headers]), text);
		if (path.startsWith('/api/')) {
			assert.equal(response.headers.get('cache-control'), 'no-store', path);
			assert.equal(response.headers.get('x-content-type-options'), 'nosniff');
			assert.match(response.headers.get('x-request-id')!, /^[A-Za-z0-9._-]{1,100}$/);
		}
		const isJson = response.headers.get('content-type')?.startsWith('application/json');
		return { status: response.status, headers: response.headers, body: isJson ? JSON.parse(text) : text };
	};
}

/** Signs in as a browser does, with the form of the page at `url`; `cookie` is what a browser would send then. */
export async function signIn(url: string, email: string, { origin = url, next = '' } = {}) {
	const response = await fetch(`${url}/login`, {
		method: 'POST',
		headers: { origin, accept: 'text/html' },
		body: new URLSearchParams({ email, password: 'demo', next }),
		redirect: 'manual',
	});
	const set = response.headers.getSetCookie();
	return { response, set, cookie: set.map((one) => one.split(';')[0]).join('; ') };
}

export function fine({ status, body }: Answer, expected = 200) {
	assert.equal(status, expected, JSON.stringify(body));
	return body;
}

export function refused({ status, body }: Answer, expected: number, code: string) {
	assert.deepEqual([status, body?.error?.code], [expected, code], JSON.stringify(body));
	const { message, detail, hint } = body.error;
	assert.equal(typeof message, 'string');
	for (const text of [detail, hint]) assert.ok(text === null || typeof text === 'string');
	return body.error;
}

/** SvelteKit's data (devalue): a list of values that refer to each other by index. */
export function unflatten(values: any[], index = 0): any {
	const value = values[index];
	if (Array.isArray(value)) return value.map((at) => unflatten(values, at));
	if (value === null || typeof value !== 'object') return value;
	return Object.fromEntries(Object.entries(value).map(([key, at]) => [key, unflatten(values, at as number)]));
}

/** RFC 4180, as a spreadsheet reads it. */
export function parseCsv(text: string): string[][] {
	const rows: string[][] = [];
	const row: string[] = [];
	for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n)/g)) {
		row.push(quoted === undefined ? plain : quoted.replaceAll('""', '"'));
		if (end === '\r\n') rows.push(row.splice(0));
	}
	return rows;
}

/** All cells, by a simple reader: quotes count only where a cell begins, and everywhere lines end one. */
export function asSpreadsheet(text: string, separator: string): string[] {
	const cells: string[] = [];
	let [cell, quoted] = ['', false];
	for (let at = 0; at < text.length; at++) {
		const [character, next] = text.slice(at, at + 2);
		if (quoted && character === '"' && next === '"') cell += text[at++];
		else if (quoted ? character === '"' : character === '"' && cell === '') quoted = !quoted;
		else if (!quoted && (character === separator || character === '\n')) cells.push(cell), (cell = '');
		else cell += character;
	}
	return [...cells, cell];
}
