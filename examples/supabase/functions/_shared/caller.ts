// Who calls, and the database as that caller sees it.

import { createClient } from '@supabase/supabase-js';
import type { MeshhookSecrets } from '../../meshhook-secrets.types.ts';

export interface Caller {
	token: string;
	/** As the token claims. Whether the token is genuine, the platform (verify_jwt) and the database's API decide. */
	role: string;
}

export function callerOf(request: Request): Caller {
	const token = request.headers.get('authorization')?.match(/^Bearer +(\S+)$/i)?.[1] ?? '';
	return { token, role: roleIn(token) };
}

function roleIn(token: string): string {
	try {
		const payload = token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/');
		const { role } = JSON.parse(atob(payload)) as { role?: unknown };
		return typeof role === 'string' ? role : 'anon';
	} catch {
		return 'anon';
	}
}

/**
 * The extension's functions, called with the caller's own token.
 *
 * Not with SUPABASE_SERVICE_ROLE_KEY, though the platform offers it: then every mistake in these functions, or
 * verify_jwt left off, would let anybody do what the service may. This way there is nothing here to misuse. The
 * database's API checks the signature again, grants and row-level security decide, and the audit log names who asked.
 */
export function secretsOf({ token }: Caller) {
	const client = createClient<MeshhookSecrets>(Deno.env.get('SUPABASE_URL')!, Deno.env.get('SUPABASE_ANON_KEY')!, {
		accessToken: () => Promise.resolve(token),
	});
	return client.schema('meshhook_secrets');
}
