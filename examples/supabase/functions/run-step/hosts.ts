// Where steps may go: an allow list, so that a workflow can neither reach into the network of this function (SSRF)
// nor carry a secret to whom it likes.

const LOCAL = ['localhost', '127.0.0.1', '[::1]'];

/** Entries are `api.example.com` or `*.example.com` (below it, not itself), with `:port` if it is not the usual one. */
export function allowedHosts(list: string): string[] {
	return list.split(',').map((entry) => entry.trim().toLowerCase()).filter((entry) => entry !== '');
}

export function isAllowedHost({ host }: URL, allowed: string[]): boolean {
	const fits = (entry: string) => entry.startsWith('*.') && host.endsWith(entry.slice(1)) && host.length >= entry.length;
	return allowed.some((entry) => host === entry || fits(entry));
}

/** https; for development also http on this machine. */
export function isAllowedScheme({ protocol, hostname }: URL, allowHttp: boolean): boolean {
	return protocol === 'https:' || (allowHttp && protocol === 'http:' && LOCAL.includes(hostname));
}
