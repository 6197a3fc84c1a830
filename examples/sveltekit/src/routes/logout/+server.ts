import { redirect } from '@sveltejs/kit';
import type { RequestHandler } from './$types';

export const POST: RequestHandler = async ({ cookies, locals }) => {
	await locals.supabase.auth.signOut({ scope: 'local' });
	// Also if Auth could not be asked: this browser has forgotten.
	for (const { name } of cookies.getAll()) {
		if (name.startsWith('sb-')) cookies.delete(name, { path: '/' });
	}
	redirect(303, '/login');
};
