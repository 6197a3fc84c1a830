import { error } from '@sveltejs/kit';
import { createApi } from '$lib/api';
import { attempt } from '$lib/load';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ fetch, parent }) => {
	const { user } = await parent();
	if (!user?.operator) error(403, 'for operators');
	return { first: await attempt(createApi(fetch).keks()) };
};
