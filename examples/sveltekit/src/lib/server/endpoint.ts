// What all endpoints have in common: the request is checked against schemas, the answer is JSON, and so are errors.

import { json, type RequestEvent, type RequestHandler } from '@sveltejs/kit';
import { z } from 'zod';
import { ApiError, errorResponse, invalid, log, tooLarge } from './errors';
import { strict } from './schemas/strict';

const functions = ({ locals }: RequestEvent) => locals.supabase.schema('meshhook_secrets');
/** The functions of the extension, called as the one who is signed in. */
export type Secrets = ReturnType<typeof functions>;

type Call<Params, Query, Body> = { secrets: Secrets; params: Params; query: Query; body: Body };
type Nothing = Record<string, never>;
const nothing = strict({}) as z.ZodType<Nothing>;

interface Expected<Params, Query, Body> {
	params?: z.ZodType<Params>;
	query?: z.ZodType<Query>;
	/** Without it, a body is not even read. */
	body?: z.ZodType<Body>;
	/** Of the answer. */
	status?: number;
}

/** `answer` gives what is sent as JSON, or a whole response, or nothing at all (204). */
export function endpoint<Params = Nothing, Query = Nothing, Body = Nothing>(
	expected: Expected<Params, Query, Body>,
	answer: (call: Call<Params, Query, Body>) => Promise<object | void>,
): RequestHandler {
	return async (event) => {
		try {
			const given = await answer({
				secrets: functions(event),
				params: check(expected.params ?? (z.object({}) as z.ZodType<Params>), event.params),
				query: check(expected.query ?? (nothing as z.ZodType<Query>), Object.fromEntries(event.url.searchParams)),
				body: expected.body ? check(expected.body, await jsonOf(event.request)) : ({} as Body),
			});
			if (given instanceof Response) return given;
			return given ? json(given, { status: expected.status }) : new Response(null, { status: 204 });
		} catch (thrown) {
			const known = thrown instanceof ApiError;
			if (!known || thrown.status >= 500) {
				log({ id: event.locals.requestId, route: event.route.id, method: event.request.method }, thrown);
			}
			return errorResponse(known ? thrown : new ApiError(500, 'internal', 'Something went wrong on the server.'));
		}
	};
}

function check<T>(schema: z.ZodType<T>, given: unknown): T {
	const { data, error } = schema.safeParse(given);
	if (error) throw invalid(error.issues.map(({ path, message }) => ({ path: path.join('.'), message })));
	return data as T;
}

/** The body; one that is not there is an empty object. */
async function jsonOf(request: Request): Promise<unknown> {
	const text = await request.text().catch((thrown) => {
		throw thrown?.status === 413 ? tooLarge() : thrown;
	});
	if (!text) return {};
	const [type] = (request.headers.get('content-type') ?? '').split(';');
	if (type.trim().toLowerCase() !== 'application/json') throw invalid([{ path: '', message: 'Send application/json' }]);
	try {
		return JSON.parse(text);
	} catch {
		throw invalid([{ path: '', message: 'The body is not JSON' }]);
	}
}
