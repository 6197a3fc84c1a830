// A stack for each test file: its own database, gateway, stand-in for Auth and, if asked for, the web page.

import { createClient, type SupabaseClient } from '@supabase/supabase-js';
import { mkdtempSync } from 'node:fs';
import { after } from 'node:test';
import { start, type Options, type Stack } from '../../demo/web/stack.ts';
import type { MeshhookSecrets } from '../../examples/supabase/meshhook-secrets.types.ts';

export const ALICE = 'alice@demo.test';
export const BOB = 'bob@demo.test';
export const OPERATOR = 'olga@demo.test';
/** Alice's projects, the second without secrets, and Bob's. */
export const SHOP = '5709e000-0000-4000-8000-000000000001';
export const NEWSLETTER = '5709e000-0000-4000-8000-000000000004';
export const BLOG = 'b106e000-0000-4000-8000-000000000002';

/** Starts a stack that ends with the test file. */
export async function startStack(options: Omit<Options, 'home'> = {}): Promise<Stack> {
	// A short path: sockets are in it. /tmp, so that the server's user can enter it.
	const stack = await start({ home: mkdtempSync('/tmp/meshhook_secrets-web.'), ...options });
	after(() => stack.stop());
	return stack;
}

export type Client = SupabaseClient<MeshhookSecrets>;

/** supabase-js with this token (a user's, or one of the stack's keys). */
export function clientOf(stack: Stack, token: string): Client {
	return createClient<MeshhookSecrets>(stack.supabaseUrl, stack.anonKey, {
		accessToken: async () => token,
		auth: { persistSession: false, autoRefreshToken: false },
	});
}

/** The functions, as seen by one who is signed in. */
export async function signedIn(stack: Stack, email: string) {
	return clientOf(stack, (await stack.auth.session(email)).access_token).schema('meshhook_secrets');
}

/** The functions, as seen by a worker. */
export function asService(stack: Stack) {
	return clientOf(stack, stack.serviceRoleKey).schema('meshhook_secrets');
}
