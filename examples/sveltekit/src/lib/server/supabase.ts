import { createServerClient } from '@supabase/ssr';
import { createClient, isAuthRetryableFetchError, type SupabaseClient } from '@supabase/supabase-js';
import type { RequestEvent } from '@sveltejs/kit';
import { env } from '$env/dynamic/public';
import type { User } from '$lib/api-types';
import type { Database } from './database';
import { unavailable } from './errors';

const OPERATOR_ROLE = 'meshhook_operator';

const PATIENCE = 15_000; // ms
/** It reads the whole log. */
const PATIENCE_FOR_VERIFY = 120_000;

/** Gives up on who does not answer. Not with AbortSignal.timeout: supabase-js would take its error for one to retry. */
const patient: typeof fetch = (input, init) => {
	const givenUp = new AbortController();
	const wait = /\/rpc\/audit_verify$/.test(String(input)) ? PATIENCE_FOR_VERIFY : PATIENCE;
	setTimeout(() => givenUp.abort(), wait).unref();
	return fetch(input, { ...init, signal: AbortSignal.any([givenUp.signal, ...(init?.signal ? [init.signal] : [])]) });
};

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
			global: { fetch: patient, headers: { ...headers, Authorization: `Bearer ${token}` } },
			auth: { persistSession: false, autoRefreshToken: false, detectSessionInUrl: false },
		});
	}
	return createServerClient<Database>(PUBLIC_SUPABASE_URL, PUBLIC_SUPABASE_ANON_KEY, {
		global: { fetch: patient, headers },
		// Only this server uses the session, so no script needs to read the cookie.
		cookieOptions: { httpOnly: true, sameSite: 'lax', secure: url.protocol === 'https:', path: '/' },
		cookies: {
			getAll: () => cookies.getAll(),
			setAll: (changed) => {
				for (const { name, value, options } of changed) {
					cookies.set(name, value, { ...options, path: '/' });
					locals.setCookies.push(cookies.serialize(name, value, { ...options, path: '/' }));
				}
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
