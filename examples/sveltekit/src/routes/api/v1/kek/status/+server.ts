import type { KekState } from '$lib/api-types';
import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';

export const GET = endpoint({}, async ({ secrets }) => {
	const [keks, root_keys, [seal], [health]] = await Promise.all([
		ask(secrets.rpc('kek_status')),
		ask(secrets.rpc('root_key_status')),
		ask(secrets.rpc('seal_status')),
		ask(secrets.rpc('health')),
	]);
	return { keks, root_keys, seal, health } satisfies KekState;
});
