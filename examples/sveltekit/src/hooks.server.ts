import type { Handle, HandleServerError, RequestEvent } from '@sveltejs/kit';
import {
	ApiError, crossOrigin, errorResponse, log, methodNotAllowed, plainResponse, unauthenticated,
} from '$lib/server/errors';
import { requestId, secure } from '$lib/server/headers';
import { bearer, clientOf, verifiedUser } from '$lib/server/supabase';

const OPEN = ['/login', '/logout'];
/** Headers of the API that pages read, also in what the server rendered. */
const FOR_PAGES = ['content-type', 'x-request-id'];

/** SvelteKit asks this hook about such addresses too, but outside of what catches an error: the process would end. */
function isMalformed({ url }: RequestEvent): boolean {
	try {
		decodeURI(url.pathname);
		return false;
	} catch {
		return true;
	}
}
const isApi = ({ url }: RequestEvent) => url.pathname.startsWith('/api/');

/** Browsers send cookies along with requests of other sites' making; a program's token comes from nobody else. */
function isForged({ request, url }: RequestEvent): boolean {
	const reads = request.method === 'GET' || request.method === 'HEAD';
	return !reads && !bearer(request) && request.headers.get('origin') !== url.origin;
}

/** Who may not go on gets an answer here, in the place of the one that was asked for. */
async function guard(event: RequestEvent): Promise<Response | undefined> {
	const { locals, request, route, url } = event;
	if (isMalformed(event)) throw new ApiError(400, 'invalid_request', 'The address is malformed.');
	locals.supabase = clientOf(event);
	// One can leave also while Auth cannot say who it was.
	locals.user = url.pathname === '/logout' ? null : await verifiedUser(locals.supabase, request);
	if (isApi(event) && !locals.user) throw unauthenticated();
	if (isForged(event)) throw crossOrigin();
	if (isApi(event) && !route.id) throw new ApiError(404, 'not_found', 'There is nothing here.');
	if (!locals.user && !OPEN.includes(url.pathname)) {
		const location = `/login?next=${encodeURIComponent(url.pathname + url.search)}`;
		return new Response(null, { status: 303, headers: { location } });
	}
}

function refusal(event: RequestEvent, thrown: unknown): Response {
	if (!(thrown instanceof ApiError)) throw thrown;
	if (thrown.status >= 500) log(place(event), thrown);
	return isApi(event) ? errorResponse(thrown) : plainResponse(thrown);
}

export const handle: Handle = async ({ event, resolve }) => {
	const { locals, request, url } = event;
	locals.requestId = requestId(request);
	locals.setCookies = [];
	const refused = await guard(event).catch((thrown) => refusal(event, thrown));
	if (refused) {
		for (const cookie of locals.setCookies) refused.headers.append('set-cookie', cookie);
		return secure(refused, url, locals.requestId);
	}
	const response = await resolve(event, { filterSerializedResponseHeaders: (name) => FOR_PAGES.includes(name) });
	// SvelteKit's own answer to a method that a route has not is a text.
	const isPlain = response.status === 405 && !response.headers.get('content-type')?.startsWith('application/json');
	const answer = isApi(event) && isPlain ? methodNotAllowed(response.headers.get('allow')) : response;
	return secure(answer, url, locals.requestId);
};

export const handleError: HandleServerError = ({ error: thrown, event, status, message }) => {
	const id = event.locals.requestId;
	if (status !== 404) log(place(event), thrown);
	return { message, id };
};

function place({ locals, route, request }: RequestEvent) {
	return { id: locals.requestId, route: route.id, method: request.method };
}
