import type { Due } from '$lib/api-types';
import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { listDue } from '$lib/server/schemas/secrets';
import { ofProject } from '$lib/server/schemas/strict';

export const GET = endpoint({ params: ofProject, query: listDue }, async ({ secrets, params, query }) => {
	const due = await ask(secrets.rpc('secret_due', { project_id: params.projectId, ...query }));
	return { due } satisfies Due;
});
