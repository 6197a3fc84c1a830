// A function's frame: POST with a JSON object, from a caller with a token; errors are answered as JSON.
//
// There is no CORS: neither function is for browsers. A page calls the database's functions itself.

import { type Caller, callerOf } from './caller.ts';
import { denied, Failure } from './errors.ts';
import { type Json, object } from './json.ts';

export function endpoint(
	name: string,
	handle: (body: Json, caller: Caller, signal: AbortSignal) => Promise<Response>,
): (request: Request) => Promise<Response> {
	return async (request) => {
		try {
			if (request.method !== 'POST') throw new Failure(405, 'method_not_allowed', 'only POST');
			const caller = callerOf(request);
			if (!caller.token) throw denied('anon', 'no token: Authorization: Bearer ...');
			return await handle(await objectIn(request), caller, request.signal);
		} catch (error) {
			if (error instanceof Failure) return error.toResponse();
			// Its kind only: messages of fetch and JSON quote what they were given.
			console.error(`${name}: ${error instanceof Error ? error.name : typeof error}`);
			return new Failure(500, 'internal', 'internal error').toResponse();
		}
	};
}

async function objectIn(request: Request): Promise<Json> {
	const body: unknown = await request.json().catch(() => undefined);
	return object(body, 'the body');
}
