import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';

/** Takes time by the number of records. */
export const GET = endpoint({}, async ({ secrets }) => {
	const [verification] = await ask(secrets.rpc('audit_verify'));
	return verification;
});
