import type { Findings } from '$lib/api-types';
import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';

export const GET = endpoint({}, async ({ secrets }) => {
	const findings = await ask(secrets.rpc('doctor'));
	return { findings } satisfies Findings;
});
