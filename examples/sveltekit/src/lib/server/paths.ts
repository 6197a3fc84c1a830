/** A path of this site, where one may be sent after signing in; `/` for everything else. */
export function pathOfThisSite(next: unknown, { origin }: URL): string {
	if (typeof next !== 'string' || !next.startsWith('/') || !URL.canParse(next, origin)) return '/';
	const url = new URL(next, origin);
	// Also `/.//evil.example` is of this site, but its path alone would lead away.
	return url.origin === origin && !url.pathname.startsWith('//') ? url.pathname + url.search + url.hash : '/';
}
