import { error } from '@sveltejs/kit';
import { createApi } from '$lib/api';
import { filtersOf, PAGE_SIZE } from '$lib/components/audit/query';
import { attempt } from '$lib/load';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ fetch, parent, url }) => {
	const { user } = await parent();
	if (!user?.operator) error(403, 'for operators');
	const filters = filtersOf(url);
	const query = { ...filters, page_size: PAGE_SIZE };
	return { filters, query, first: await attempt(createApi(fetch).audit(query)) };
};
