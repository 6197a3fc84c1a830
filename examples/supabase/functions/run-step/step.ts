// The HTTP request of a workflow's step, with {{ secrets.NAME }} in it, and the same with the values.

import { badArgument, Failure } from '../_shared/errors.ts';
import { object, onlyKeys } from '../_shared/json.ts';
import { asIs, type Escape, fill, inHeader, inJson, inQuery, inXml } from '../_shared/template.ts';
import { namesIn, type Values } from '../_shared/template.ts';

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE'];
/** They are fetch's. `host` would also make an allowed address serve a site that is not. */
const OWN_HEADERS = [
	'connection', 'content-length', 'expect', 'host', 'keep-alive', 'te', 'trailer', 'transfer-encoding', 'upgrade',
];

export interface Step {
	method: string;
	/** Where to; its query is in `query`. */
	url: URL;
	/** Names and values as they stand in the URL, in pairs. */
	query: [string, string | null][];
	headers: [string, string][];
	body: string | null;
	escapeBody: Escape;
}

export interface Filled {
	method: string;
	url: URL;
	headers: Headers;
	body: string | null;
}

export function readStep(request: unknown): Step {
	const json = object(request, 'request');
	onlyKeys(json, ['method', 'url', 'headers', 'body'], 'request');
	const method = typeof json.method === 'string' ? json.method.toUpperCase() : '';
	if (!METHODS.includes(method)) throw badArgument(`request.method must be one of ${METHODS.join(', ')}`);
	const headers = readHeaders(json.headers ?? {});
	const { body, escapeBody } = readBody(json.body, headers);
	if (body !== null && (method === 'GET' || method === 'HEAD')) throw badArgument(`${method} has no body`);
	return { method, ...readUrl(json.url), headers, body, escapeBody };
}

function readUrl(text: unknown): { url: URL; query: [string, string | null][] } {
	if (typeof text !== 'string' || !URL.canParse(text)) throw badArgument('request.url must be a URL');
	const url = new URL(text);
	if (url.username || url.password) throw badArgument('request.url must not have a user or a password: use a header');
	const search = /^[^?#]*\?([^#]*)/.exec(text)?.[1];
	const query = (search?.split('&') ?? []).map((pair): [string, string | null] => {
		const at = pair.indexOf('=');
		return at < 0 ? [pair, null] : [pair.slice(0, at), pair.slice(at + 1)];
	});
	// A secret must never choose where to go, nor be where proxies and logs expect none.
	if (namesIn(text).length !== query.flatMap(([, value]) => namesIn(value ?? '')).length) {
		throw badArgument('in request.url, secrets can only be values of query parameters');
	}
	url.search = '';
	url.hash = '';
	return { url, query };
}

function readHeaders(value: unknown): [string, string][] {
	const entries = Object.entries(object(value, 'request.headers'));
	const names = new Set(entries.map(([name]) => name.toLowerCase()));
	if (names.size < entries.length) throw badArgument('request.headers: one is there twice');
	return entries.map(([name, text]) => {
		if (typeof text !== 'string') throw badArgument(`request.headers: ${name} must be a string`);
		if (!/^[\w!#$%&'*+.^`|~-]+$/.test(name)) throw badArgument('request.headers: not the name of a header');
		if (OWN_HEADERS.includes(name.toLowerCase())) throw badArgument(`request.headers: ${name} cannot be set`);
		if (/[^\t\x20-\x7e]/.test(text)) throw badArgument(`request.headers: ${name} must be printable ASCII`);
		return [name, text];
	});
}

/** A body that is no string is JSON; a string is what its content type says, which decides how values are escaped. */
function readBody(body: unknown, headers: [string, string][]): { body: string | null; escapeBody: Escape } {
	if (body === undefined || body === null) return { body: null, escapeBody: asIs };
	let type = headers.find(([name]) => name.toLowerCase() === 'content-type')?.[1];
	if (type === undefined) {
		if (typeof body === 'string') throw badArgument('request.body: a text needs a content-type header');
		headers.push(['content-type', type = 'application/json']);
	}
	if (namesIn(type).length) throw badArgument('request.headers: no secret can be the content-type');
	const escapeBody = escapeFor(type.split(';')[0].trim().toLowerCase());
	if (typeof body !== 'string') {
		if (escapeBody !== inJson) throw badArgument(`request.body must be a string for ${type}`);
		return { body: JSON.stringify(body), escapeBody };
	}
	// In a JSON text, {{ can only be inside of a string: that is where inJson is right.
	if (escapeBody === inJson && !isJson(body)) throw badArgument('request.body is not JSON');
	return { body, escapeBody };
}

function escapeFor(type: string): Escape {
	if (/[/+]json$/.test(type)) return inJson;
	if (/[/+]xml$/.test(type)) return inXml;
	return type === 'application/x-www-form-urlencoded' ? inQuery : asIs;
}

function isJson(text: string): boolean {
	try {
		JSON.parse(text);
		return true;
	} catch {
		return false;
	}
}

export function namesOf({ query, headers, body }: Step): string[] {
	const texts = [...query.map(([, value]) => value ?? ''), ...headers.map(([, value]) => value), body ?? ''];
	return [...new Set(texts.flatMap(namesIn))];
}

export function fillStep(step: Step, values: Values): Filled {
	const url = new URL(step.url);
	const pairs = step.query.map(([name, value]) => value === null ? name : `${name}=${fill(value, values, inQuery)}`);
	url.search = pairs.join('&');
	const headers = new Headers();
	for (const [name, value] of step.headers) headers.append(name, fill(value, values, inHeader(unusable)));
	const body = step.body === null ? null : fill(step.body, values, step.escapeBody);
	return { method: step.method, url, headers, body };
}

function unusable(name: string): Failure {
	const hint = 'Often a line break at its end that came with the clipboard: write it again without.';
	const detail = `${name} has line breaks or control characters.`;
	return new Failure(422, 'secret_unusable', 'a secret cannot stand in a header', detail, hint);
}
