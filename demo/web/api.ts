// One address for everything, as Supabase's API gateway has: /rest/v1 is the database's gateway, /auth/v1 Auth.

import { createServer, request as send, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Auth } from './auth.ts';

/** Serves on a free port of this machine; `socketPath` is where the gateway listens. */
export async function serveApi(socketPath: string): Promise<{ server: Server; url: string; auth: (auth: Auth) => void }> {
	let auth: Auth | undefined;
	const server = createServer((request, response) => {
		const url = request.url ?? '/';
		response.on('error', () => {});
		if (auth && url.startsWith('/auth/v1/')) {
			auth.handle(request, response, url.slice('/auth/v1'.length)).catch(() => response.writeHead(500).end());
		} else if (url.startsWith('/rest/v1/')) {
			const { apikey, host, ...headers } = request.headers;
			// As Supabase does: a request without a user's token is one of the API key's role.
			headers.authorization ??= apikey && `Bearer ${apikey}`;
			const forward = send({ socketPath, method: request.method, path: url.slice('/rest/v1'.length), headers }, (answer) => {
				response.writeHead(answer.statusCode ?? 502, answer.headers);
				answer.pipe(response);
			});
			forward.on('error', () => response.headersSent ? response.destroy() : response.writeHead(502).end());
			response.on('close', () => forward.destroy());
			request.pipe(forward);
		} else response.writeHead(404).end();
	});
	await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
	const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
	return { server, url, auth: (served) => (auth = served) };
}
