import { createApi } from '$lib/api';
import { filtersOf, PAGE_SIZE } from '$lib/components/audit/query';
import { attempt } from '$lib/load';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ fetch, params, url }) => {
	const filters = { ...filtersOf(url), project_id: undefined };
	const query = { ...filters, project_id: params.projectId, page_size: PAGE_SIZE };
	return { filters, query, first: await attempt(createApi(fetch).audit(query)) };
};
