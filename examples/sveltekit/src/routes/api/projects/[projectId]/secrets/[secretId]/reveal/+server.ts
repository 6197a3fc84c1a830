import type { Revealed } from '$lib/api-types';
import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { reveal } from '$lib/server/schemas/secrets';
import { ofSecret } from '$lib/server/schemas/strict';
import { secretOf } from '$lib/server/secrets';

/** The only answer with a value. POST, because it leaves a record, and so that nothing on the way keeps it. */
export const POST = endpoint({ params: ofSecret, body: reveal }, async ({ secrets, params, body }) => {
	const value = await ask(secrets.rpc('secret_get', { ...(await secretOf(secrets, params)), ...body }));
	return { value, version: body.version } satisfies Revealed;
});
