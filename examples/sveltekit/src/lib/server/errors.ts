// Errors of the database, of Auth and of the request, as the API and the pages answer them. The only place that maps.

import type { PostgrestError, PostgrestSingleResponse } from '@supabase/supabase-js';
import { error, json, text } from '@sveltejs/kit';
import type { ApiErrorBody, ApiErrorCode, Issue } from '$lib/api-types';

export class ApiError extends Error {
	override readonly name = 'ApiError';
	readonly status: number;
	readonly code: ApiErrorCode;
	readonly detail: string | null;
	readonly hint: string | null;
	readonly issues?: Issue[];

	constructor(
		status: number,
		code: ApiErrorCode,
		message: string,
		more: { detail?: string | null; hint?: string | null; issues?: Issue[] } = {},
	) {
		super(message);
		this.status = status;
		this.code = code;
		this.detail = more.detail || null;
		this.hint = more.hint || null;
		this.issues = more.issues;
	}
}

export const unauthenticated = () => new ApiError(401, 'unauthenticated', 'Please sign in.');
export const crossOrigin = () => new ApiError(403, 'cross_origin', 'The request comes from another site.');
export const invalid = (issues: Issue[]) =>
	new ApiError(400, 'invalid_request', 'The request is not legal.', { issues });
export const unavailable = () => new ApiError(502, 'unavailable', 'The database or Auth cannot be reached.');
/** In the words of the database, which knows secrets by name. */
export const noSuchSecret = () =>
	new ApiError(404, 'PT404', 'secret not found', { detail: 'The project has no secret of this id.' });
export const tooLarge = () => new ApiError(413, 'PT413', 'The request is too large.');

/** What the extension says itself: without user data, hence handed on. */
const STATUS: Record<string, number> = {
	42501: 403, PT404: 404, PT409: 409, PT410: 410, PT413: 413, PT503: 503,
	22004: 400, 22023: 400, 23503: 409, 25006: 405, 55000: 500, XX001: 500,
};

function ofDatabase({ code, message, details, hint }: PostgrestError): ApiError {
	// No SQLSTATE: nobody answered, or a proxy on the way. PGRST1, 2 and 3 are about the request, the others about the
	// gateway, which has no database.
	if (!code || /^PGRST[^123]/.test(code)) return unavailable();
	if (code.startsWith('PGRST3')) return new ApiError(401, code, 'Please sign in again.');
	if (STATUS[code]) return new ApiError(STATUS[code], code, message, { detail: details, hint });
	// PostgreSQL's own texts quote what was given.
	if (code.startsWith('22')) return new ApiError(400, code, 'An argument is not legal.');
	return new ApiError(500, code, 'The database refused.');
}

/** The data of a query, or its error thrown. */
export async function ask<T>(query: PromiseLike<PostgrestSingleResponse<T>>): Promise<T> {
	const answer = await query;
	if (answer.error) throw ofDatabase(answer.error);
	return answer.data;
}

export function errorResponse({ status, code, message, detail, hint, issues }: ApiError): Response {
	return json({ error: { code, message, detail, hint, issues } } satisfies ApiErrorBody, { status });
}

/** For the API: the 405 of SvelteKit, with the methods that there are. */
export function methodNotAllowed(allow: string | null): Response {
	const response = errorResponse(new ApiError(405, 'method_not_allowed', 'This address does not take this method.'));
	if (allow) response.headers.set('allow', allow);
	return response;
}

/** The same for a browser that opens a page. */
export function plainResponse({ status, message }: ApiError): Response {
	return text(`${status}: ${message}`, { status, headers: { 'content-type': 'text/plain; charset=utf-8' } });
}

/** For pages: the same errors in SvelteKit's way. */
export function errorPage(thrown: unknown): never {
	if (thrown instanceof ApiError) error(thrown.status, { message: thrown.message });
	throw thrown;
}

/** One line for the log: where and what, never a message, which could hold what was given. */
export function log(where: { id: string; route: string | null; method: string }, thrown: unknown): void {
	const { name, code, status } = (thrown ?? {}) as Record<string, unknown>;
	const known = (part: unknown) => (part !== undefined && /^[\w.]{1,60}$/.test(String(part)) ? String(part) : undefined);
	console.error(JSON.stringify({ ...where, error: known(name), code: known(code), status: known(status) }));
}
