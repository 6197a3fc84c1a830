import type { ProjectSealStatus } from '$lib/api-types';
import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { ofProject } from '$lib/server/schemas/strict';

/** For pages that wait until a sealed project is open: unlike the list, it leaves no audit record. */
export const GET = endpoint({ params: ofProject }, async ({ secrets, params }) => {
	const [seal] = await ask(secrets.rpc('project_seal_status', { project_id: params.projectId }));
	return seal satisfies ProjectSealStatus;
});
