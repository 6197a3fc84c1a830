// A LOCAL TOKEN ISSUER FOR THE DEMO, in the place of Supabase Auth: accounts from a list, one password for all. It
// answers the few requests that supabase-js makes, and asks the database's access token hook, as Auth does.

import { randomUUID } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { ACCOUNTS, PASSWORD, type Account } from './accounts.ts';
import { sign, verify, type Claims } from './tokens.ts';

const LIFETIME = 3600; // seconds; Supabase's default
/** Requests that come at the same time all renew the session with the same token: Supabase's refresh token reuse interval. */
const REUSE_INTERVAL = 10_000; // ms

export interface Auth {
	handle(request: IncomingMessage, response: ServerResponse, path: string): Promise<void>;
	/** What signing in gives: for tests that are no browser. */
	session(email: string): Promise<{ access_token: string; refresh_token: string }>;
}

/** `hook` is the database's access token hook: it gets the event as JSON and returns it with the final claims. */
export function createAuth(secret: string, issuer: string, hook: (event: string) => Promise<string>): Auth {
	const refreshTokens = new Map<string, { account: Account; until: number }>();

	async function issue(account: Account) {
		const claims: Claims = {
			iss: issuer, aud: 'authenticated', sub: account.id, role: 'authenticated', email: account.email, phone: '',
			aal: 'aal1', session_id: randomUUID(), is_anonymous: false, app_metadata: { provider: 'email' },
			user_metadata: { name: account.name },
		};
		const event = { user_id: account.id, claims, authentication_method: 'password' };
		const final = JSON.parse(await hook(JSON.stringify(event))) as { claims: Claims };
		const refresh_token = randomUUID();
		refreshTokens.set(refresh_token, { account, until: Infinity });
		return {
			access_token: sign(final.claims, secret, LIFETIME), token_type: 'bearer', expires_in: LIFETIME,
			expires_at: Math.floor(Date.now() / 1000) + LIFETIME, refresh_token, user: user(account, final.claims),
		};
	}

	async function token(grant: string | null, body: Record<string, string>) {
		if (grant === 'refresh_token') {
			const known = refreshTokens.get(body.refresh_token);
			if (!known || known.until < Date.now()) return undefined;
			known.until = Math.min(known.until, Date.now() + REUSE_INTERVAL);
			return issue(known.account);
		}
		const account = ACCOUNTS.find((known) => known.email === body.email);
		return account && body.password === PASSWORD ? issue(account) : undefined;
	}

	return {
		session: (email) => issue(ACCOUNTS.find((known) => known.email === email)!),
		async handle(request, response, path) {
			const { pathname, searchParams } = new URL(path, issuer);
			const answer = (status: number, body: unknown) => {
				response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' });
				response.end(JSON.stringify(body));
			};
			if (request.method === 'POST' && pathname === '/token') {
				const session = await token(searchParams.get('grant_type'), await json(request));
				if (session) answer(200, session);
				else answer(400, { code: 400, error_code: 'invalid_credentials', msg: 'Invalid login credentials' });
				return;
			}
			const claims = verify(request.headers.authorization?.replace(/^Bearer /i, '') ?? '', secret);
			const account = ACCOUNTS.find((known) => known.id === claims?.sub);
			if (pathname === '/user' && claims && account) answer(200, user(account, claims));
			else if (request.method === 'POST' && pathname === '/logout') answer(204, null);
			else if (pathname === '/.well-known/jwks.json') answer(200, { keys: [] });
			else answer(403, { code: 403, error_code: 'bad_jwt', msg: 'invalid JWT' });
		},
	};
}

function user(account: Account, claims: Claims) {
	return {
		id: account.id, aud: 'authenticated', role: claims.role, email: account.email, phone: '',
		app_metadata: { provider: 'email' }, user_metadata: { name: account.name }, identities: [],
		created_at: '2026-01-01T00:00:00Z', updated_at: '2026-01-01T00:00:00Z',
	};
}

async function json(request: IncomingMessage): Promise<Record<string, string>> {
	let text = '';
	for await (const chunk of request) text += chunk;
	try {
		return JSON.parse(text);
	} catch {
		return {};
	}
}
