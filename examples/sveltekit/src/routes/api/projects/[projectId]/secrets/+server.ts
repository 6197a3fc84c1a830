import type { SecretPage } from '$lib/api-types';
import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { listSecrets, newSecret } from '$lib/server/schemas/secrets';
import { ofProject } from '$lib/server/schemas/strict';
import { store } from '$lib/server/secrets';

export const GET = endpoint({ params: ofProject, query: listSecrets }, async ({ secrets, params, query }) => {
	const project_id = params.projectId;
	const [page, [seal]] = await Promise.all([
		ask(secrets.rpc('secret_list', { project_id, ...query })),
		ask(secrets.rpc('project_seal_status', { project_id })),
	]);
	return {
		secrets: page,
		next: page.length < query.page_size ? null : page[page.length - 1].name,
		seal,
	} satisfies SecretPage;
});

/** Only a new one: a version of one that exists is PUT. */
export const POST = endpoint({ params: ofProject, body: newSecret, status: 201 }, ({ secrets, params, body }) =>
	store(secrets, { project_id: params.projectId, name: body.name, cas: 0 }, body),
);
