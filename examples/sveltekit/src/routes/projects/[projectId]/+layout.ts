import { error } from '@sveltejs/kit';
import type { LayoutLoad } from './$types';

/** The project of the page. Whether one may see it is decided by the database at every call, not here. */
export const load: LayoutLoad = async ({ params, parent }) => {
	const { projects } = await parent();
	const project = projects.find(({ id }) => id === params.projectId);
	if (!project) error(403, 'no such project');
	return { project };
};
