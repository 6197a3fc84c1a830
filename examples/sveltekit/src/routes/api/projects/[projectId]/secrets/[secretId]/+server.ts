import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { deletion, expire, newVersion } from '$lib/server/schemas/secrets';
import { ofSecret } from '$lib/server/schemas/strict';
import { secretOf, store } from '$lib/server/secrets';

/** A new version. */
export const PUT = endpoint({ params: ofSecret, body: newVersion }, async ({ secrets, params, body }) => {
	const { cas, previous_valid_for } = body;
	return store(secrets, { ...(await secretOf(secrets, params)), cas, previous_valid_for }, body);
});

export const PATCH = endpoint({ params: ofSecret, body: expire }, async ({ secrets, params, body }) => {
	// `infinity` is never, as null is, and not every gateway hands on a null.
	const expires_at = body.expires_at ?? 'infinity';
	return ask(secrets.rpc('secret_expire', { ...(await secretOf(secrets, params)), expires_at }));
});

/** Recoverable, unless the caller says `purge` and confirms with the secret's name. */
export const DELETE = endpoint({ params: ofSecret, query: deletion }, async ({ secrets, params, query }) => {
	const secret = await secretOf(secrets, params);
	if (query.confirm === undefined) return ask(secrets.rpc('secret_delete', secret));
	await ask(secrets.rpc('secret_purge', { ...secret, confirm: query.confirm }));
});
