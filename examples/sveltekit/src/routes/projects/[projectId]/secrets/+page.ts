import { createApi } from '$lib/api';
import type { ListSecrets } from '$lib/api-types';
import { PAGE_SIZE } from '$lib/components/secrets/list.svelte';
import { attempt } from '$lib/load';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ fetch, params, url }) => {
	const query: ListSecrets = {
		search: url.searchParams.get('search') ?? '',
		include_deleted: url.searchParams.has('include_deleted'),
		page_size: PAGE_SIZE,
	};
	return { query, first: await attempt(createApi(fetch).listSecrets(params.projectId, query)) };
};
