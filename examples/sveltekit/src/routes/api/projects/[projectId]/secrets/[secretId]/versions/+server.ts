import type { Versions } from '$lib/api-types';
import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { ofSecret } from '$lib/server/schemas/strict';
import { secretOf } from '$lib/server/secrets';

export const GET = endpoint({ params: ofSecret }, async ({ secrets, params }) => {
	const versions = await ask(secrets.rpc('secret_versions', await secretOf(secrets, params)));
	return { versions } satisfies Versions;
});
