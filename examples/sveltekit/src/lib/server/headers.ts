// Headers of every answer. The policy of pages (Content-Security-Policy) is in vite.config.ts, with its nonces.

import { randomUUID } from 'node:crypto';

/** The caller's id of the request, if it is one, or a new one. */
export function requestId(request: Request): string {
	const given = request.headers.get('x-request-id');
	return given && /^[A-Za-z0-9._-]{1,100}$/.test(given) ? given : randomUUID();
}

export function secure(response: Response, url: URL, id: string): Response {
	const { headers } = response;
	headers.set('cache-control', 'no-store');
	headers.set('x-content-type-options', 'nosniff');
	// Not no-referrer: with that, browsers send forms without their origin, which is what tells them from forged ones.
	headers.set('referrer-policy', 'same-origin');
	headers.set('permissions-policy', 'camera=(), geolocation=(), microphone=(), payment=(), usb=()');
	headers.set('cross-origin-opener-policy', 'same-origin');
	headers.set('cross-origin-resource-policy', 'same-origin');
	headers.set('x-request-id', id);
	if (!headers.has('content-security-policy')) {
		headers.set('content-security-policy', "default-src 'none'; frame-ancestors 'none'");
	}
	if (url.protocol === 'https:') headers.set('strict-transport-security', 'max-age=31536000');
	return response;
}
