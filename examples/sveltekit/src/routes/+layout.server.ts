import { env } from '$env/dynamic/private';
import type { DemoAccount, Session } from '$lib/api-types';
import { ask, errorPage } from '$lib/server/errors';
import type { LayoutServerLoad } from './$types';

const demo: DemoAccount[] | null = env.DEMO_ACCOUNTS ? JSON.parse(env.DEMO_ACCOUNTS) : null;

export const load: LayoutServerLoad = async ({ locals: { supabase, user } }): Promise<Session> => {
	const isMember = user && !user.operator;
	const projects = isMember ? await ask(supabase.from('projects').select('id, name').order('name')).catch(errorPage) : [];
	return { user, projects, demo };
};
