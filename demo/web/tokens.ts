// JSON Web Tokens with HMAC-SHA-256 (RFC 7519, RFC 7518 section 3.2), as Supabase issues them.

import { createHmac, timingSafeEqual } from 'node:crypto';

export type Claims = Record<string, unknown> & { sub?: string; role?: string; exp?: number };

const encode = (part: unknown) => Buffer.from(JSON.stringify(part)).toString('base64url');
const mac = (text: string, secret: string) => createHmac('sha256', secret).update(text).digest();

/** A token with these claims, good for `seconds`. */
export function sign(claims: Claims, secret: string, seconds: number): string {
	const now = Math.floor(Date.now() / 1000);
	const text = `${encode({ alg: 'HS256', typ: 'JWT' })}.${encode({ iat: now, exp: now + seconds, ...claims })}`;
	return `${text}.${mac(text, secret).toString('base64url')}`;
}

/** The claims of a token that this secret signed and that has not expired. */
export function verify(token: string, secret: string): Claims | null {
	const [header, payload, signature, more] = token.split('.');
	if (!header || !payload || !signature || more !== undefined) return null;
	const expected = mac(`${header}.${payload}`, secret);
	const given = Buffer.from(signature, 'base64url');
	if (given.length !== expected.length || !timingSafeEqual(given, expected)) return null;
	const claims = JSON.parse(Buffer.from(payload, 'base64url').toString()) as Claims;
	return (claims.exp ?? 0) > Date.now() / 1000 ? claims : null;
}
