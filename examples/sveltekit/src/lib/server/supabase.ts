import { createServerClient } from '@supabase/ssr';
import { createClient, isAuthRetryableFetchError, type SupabaseClient } from '@supabase/supabase-js';
import type { RequestEvent } from '@sveltejs/kit';
import { env } from '$env/dynamic/public';
import type { User } from '$lib/api-types';
import type { Database } from './database';
import { unavailable } from './errors';

const OPERATOR_ROLE = 'meshhook_operator';

/** The token of a program; browsers have the session's cookie instead. */
export function bearer(request: Request): string | undefined {
	return /^Bearer +(\S+)$/i.exec(request.headers.get('authorization') ?? '')?.[1];
}

/** A client for this request, that acts as whoever sent it. */
export function clientOf({ request, cookies, url, locals }: RequestEvent): SupabaseClient<Database> {
	const { PUBLIC_SUPABASE_URL = '', PUBLIC_SUPABASE_ANON_KEY = '' } = env;
	const headers = { 'x-request-id': locals.requestId };
	const token = bearer(request);
	if (token) {
		return createClient<Database>(PUBLIC_SUPABASE_URL, PUBLIC_SUPABASE_ANON_KEY, {
			global: { headers: { ...headers, Authorization: `Bearer ${token}` } },
			auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
		});
	}
	return createServerClient<Database>(PUBLIC_SUPABASE_URL, PUBLIC_SUPABASE_ANON_KEY, {
		global: { headers },
		// Only this server uses the session, so no script needs to read the cookie.
		cookieOptions: { httpOnly: true, sameSite: 'lax', secure: url.protocol === 'https:', path: '/' },
		cookies: {
			getAll: () => cookies.getAll(),
			setAll: (changed) => {
				for (const { name, value, options } of changed) cookies.set(name, value, { ...options, path: '/' });
			},
		},
	});
}

/** Who sent the request. What a cookie or a header says counts only after its signature was checked. */
export async function verifiedUser(supabase: SupabaseClient<Database>, request: Request): Promise<User | null> {
	const { data, error } = await supabase.auth.getClaims(bearer(request)).catch((thrown) => {
		// A token whose parts are no JSON, or other JSON than a token's.
		if (thrown instanceof SyntaxError || thrown instanceof TypeError) return { data: null, error: null };
		throw thrown;
	});
	if (error && (isAuthRetryableFetchError(error) || (error.status ?? 0) >= 500)) throw unavailable();
	if (!data?.claims.sub) return null;
	const { sub, email = '', role, user_metadata } = data.claims;
	return { id: sub, email, name: String(user_metadata?.name ?? email), operator: role === OPERATOR_ROLE };
}
