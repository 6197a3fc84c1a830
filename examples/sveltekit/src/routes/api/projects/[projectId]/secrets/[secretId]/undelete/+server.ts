import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { ofSecret } from '$lib/server/schemas/strict';
import { secretOf } from '$lib/server/secrets';

export const POST = endpoint({ params: ofSecret }, async ({ secrets, params }) =>
	ask(secrets.rpc('secret_undelete', await secretOf(secrets, params))),
);
