import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { rollback } from '$lib/server/schemas/secrets';
import { ofSecret } from '$lib/server/schemas/strict';
import { secretOf } from '$lib/server/secrets';

export const POST = endpoint({ params: ofSecret, body: rollback }, async ({ secrets, params, body }) =>
	ask(secrets.rpc('secret_rollback', { ...(await secretOf(secrets, params)), ...body })),
);
