import { fail, redirect } from '@sveltejs/kit';
import type { LoginRefused } from '$lib/api-types';
import { pathOfThisSite } from '$lib/server/paths';
import type { Actions, PageServerLoad } from './$types';

export const load: PageServerLoad = ({ locals, url }) => {
	if (locals.user) redirect(303, pathOfThisSite(url.searchParams.get('next'), url));
};

export const actions: Actions = {
	default: async ({ locals, request, url }) => {
		const form = await request.formData();
		const [email, password] = ['email', 'password'].map((field) => String(form.get(field) ?? ''));
		const { error } = await locals.supabase.auth.signInWithPassword({ email, password });
		if (error) {
			// Otherwise Auth is not there, or has had too many requests.
			const refused = error.status && error.status < 500 && error.status !== 429;
			const message = refused ? 'The email or the password is wrong.' : 'Signing in does not work at the moment.';
			return fail(refused ? 400 : 503, { email, message } satisfies LoginRefused);
		}
		redirect(303, pathOfThisSite(form.get('next'), url));
	},
};
