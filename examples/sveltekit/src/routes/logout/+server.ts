import { redirect } from '@sveltejs/kit';
import type { RequestHandler } from './$types';

export const POST: RequestHandler = async ({ locals }) => {
	// Of this browser, which forgets its session first, also if Auth cannot be told.
	await locals.supabase.auth.signOut({ scope: 'local' });
	redirect(303, '/login');
};
