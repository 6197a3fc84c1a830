import { redirect } from '@sveltejs/kit';
import type { PageLoad } from './$types';

export const load: PageLoad = async ({ parent, url }) => {
	const { user, projects } = await parent();
	if (user?.operator) redirect(307, '/keys');
	if (projects.length === 1 && !url.searchParams.has('all')) redirect(307, `/projects/${projects[0].id}/secrets`);
};
