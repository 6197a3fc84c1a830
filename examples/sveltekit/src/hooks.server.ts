import { redirect, type Handle, type HandleServerError, type RequestEvent } from '@sveltejs/kit';
import { ApiError, crossOrigin, errorPage, errorResponse, log, unauthenticated } from '$lib/server/errors';
import { requestId, secure } from '$lib/server/headers';
import { bearer, clientOf, verifiedUser } from '$lib/server/supabase';

const OPEN = ['/login', '/logout'];
/** Headers of the API that pages read, also in what the server rendered. */
const FOR_PAGES = ['content-type', 'x-request-id'];

/** SvelteKit asks this hook about such addresses too, but outside of what catches a redirect: the process would end. */
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

async function admit(event: RequestEvent): Promise<void> {
	const { locals, request, route, url } = event;
	locals.requestId = requestId(request);
	locals.supabase = clientOf(event);
	// One can leave also while Auth cannot say who it was.
	locals.user = url.pathname === '/logout' ? null : await verifiedUser(locals.supabase, request);
	if (isApi(event) && !locals.user) throw unauthenticated();
	if (isForged(event)) throw crossOrigin();
	if (isApi(event) && !route.id) throw new ApiError(404, 'not_found', 'There is nothing here.');
	if (!locals.user && !OPEN.includes(url.pathname)) {
		redirect(303, `/login?next=${encodeURIComponent(url.pathname + url.search)}`);
	}
}

export const handle: Handle = async ({ event, resolve }) => {
	if (isMalformed(event)) {
		event.locals.requestId = requestId(event.request);
		const refusal = new ApiError(400, 'invalid_request', 'The address is malformed.');
		return secure(errorResponse(refusal), event.url, event.locals.requestId);
	}
	try {
		await admit(event);
	} catch (thrown) {
		if (!(thrown instanceof ApiError)) throw thrown;
		if (thrown.status >= 500) log(place(event), thrown);
		if (!isApi(event)) errorPage(thrown);
		return secure(errorResponse(thrown), event.url, event.locals.requestId);
	}
	const response = await resolve(event, { filterSerializedResponseHeaders: (name) => FOR_PAGES.includes(name) });
	return secure(response, event.url, event.locals.requestId);
};

export const handleError: HandleServerError = ({ error: thrown, event, status, message }) => {
	const id = event.locals.requestId;
	if (status !== 404) log(place(event), thrown);
	return { message, id };
};

function place({ locals, route, request }: RequestEvent) {
	return { id: locals.requestId, route: route.id, method: request.method };
}
