// The edge functions in real Deno processes, and an API for them to call.

import { cpSync, mkdirSync, symlinkSync } from 'node:fs';
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createTcpServer, type AddressInfo, type Server } from 'node:net';
import { after } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run, Service } from '../../demo/web/processes.ts';
import type { Stack } from '../../demo/web/stack.ts';

const nodeModules = fileURLToPath(new URL('node_modules', import.meta.url));

export interface Functions {
	directory: string;
	/** Type-checks a function with its own deno.json. */
	check(name: string): Promise<string>;
	/** Starts a function that may reach these addresses and read these settings, and nothing else; its URL. */
	serve(name: string, addresses: string[], env: Record<string, string>): Promise<string>;
}

/** A copy of examples/supabase as a developer has it, except that its packages are there and nothing is downloaded. */
export async function copyFunctions(stack: Stack): Promise<Functions> {
	const directory = `${stack.home}/supabase/functions`;
	cpSync(new URL('../../examples/supabase', import.meta.url), `${stack.home}/supabase`, { recursive: true });
	for (const name of ['run-step', 'kek-rotate']) symlinkSync(nodeModules, `${directory}/${name}/node_modules`);
	mkdirSync(`${stack.home}/deno`);
	const denoEnv = { DENO_DIR: `${stack.home}/deno`, DENO_NO_UPDATE_CHECK: '1', NO_COLOR: '1' };
	// Not the launcher that npm installs: it would not pass signals on.
	const deno = (await run(`${nodeModules}/.bin/deno`, ['eval', 'console.log(Deno.execPath())'])).trim();
	const offline = (name: string) =>
		['--config', `${directory}/${name}/deno.json`, '--node-modules-dir=manual', '--no-remote', '--no-lock'];
	const env = Object.entries(denoEnv).map(([name, value]) => `${name}=${value}`);
	let logs = 0;
	return {
		directory,
		check: (name) => run('env', [...env, deno, 'check', ...offline(name), `${directory}/${name}/index.ts`]),
		async serve(name, addresses, settings) {
			const address = `127.0.0.1:${await freePort()}`;
			const net = `--allow-net=${[address, ...addresses].join(',')}`;
			const permissions = ['--no-prompt', net, `--allow-env=${Object.keys(settings).join(',')}`];
			const args = ['run', ...offline(name), '--no-check', ...permissions, `${directory}/${name}/index.ts`];
			const env = { ...denoEnv, ...settings, DENO_SERVE_ADDRESS: `tcp:${address}` };
			const service = new Service(deno, args, `${stack.home}/${name}-${++logs}.log`, env);
			after(() => service.stop());
			await service.until(async () => (await fetch(`http://${address}`)).status === 405);
			return `http://${address}`;
		},
	};
}

export interface Received {
	method: string;
	path: string;
	query: URLSearchParams;
	headers: IncomingHttpHeaders;
	body: string;
}

/** An API that records what it gets, and answers by path. */
export class Target {
	readonly received: Received[] = [];
	readonly #server = createServer((request, response) => void this.#answer(request, response));

	async start(): Promise<this> {
		await listen(this.#server);
		after(() => {
			this.#server.closeAllConnections();
			this.#server.close();
		});
		return this;
	}

	get host(): string {
		return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
	}

	async #answer(request: IncomingMessage, response: ServerResponse) {
		const url = new URL(request.url!, 'http://target');
		const chunks: Buffer[] = [];
		for await (const chunk of request) chunks.push(chunk);
		const { method, headers } = request;
		const body = Buffer.concat(chunks).toString();
		this.received.push({ method: method!, path: url.pathname, query: url.searchParams, headers, body });
		const all = `${request.url}\n${JSON.stringify(headers)}\n${body}`;
		const answer = ANSWERS[url.pathname];
		if (answer) answer(response, { url: request.url!, all });
		else response.writeHead(200, { 'content-type': 'application/json', 'set-cookie': 'a=b' }).end('{"ok": true}');
	}
}

const ANSWERS: Record<string, (response: ServerResponse, request: { url: string; all: string }) => void> = {
	'/echo': (response, { url, all }) => {
		const base64 = Buffer.from(all).toString('base64');
		const [json, form] = [JSON.stringify({ all }), String(new URLSearchParams({ all }))];
		response.writeHead(418, { 'content-type': 'application/json', location: url, etag: base64 });
		response.end(JSON.stringify({ all, json, form, base64 }));
	},
	'/redirect': (response, { all, url }) => {
		const to = new URL(url, 'http://target').searchParams.get('to')!;
		response.writeHead(307, { location: `${to}?${new URLSearchParams({ all })}` }).end();
	},
	'/garbage': (response) => void response.socket!.end('garbage, no HTTP\r\n\r\n'),
	'/breaks': (response) => {
		response.writeHead(200, { 'content-length': '100' }).write('half of');
		setTimeout(() => response.destroy(), 50);
	},
	'/slow': () => {},
	'/drips': (response) => {
		const drip = setInterval(() => response.write('.'), 100);
		response.on('close', () => clearInterval(drip));
	},
	'/huge': (response, { all }) => void response.end(all + 'x'.repeat(1024 * 1024)),
	'/binary': (response) => void response.end(Buffer.from([0x41, 0xff, 0x42])),
	'/latin1': (response) => {
		response.writeHead(200, { 'content-type': 'text/plain; charset=iso-8859-1' }).end(Buffer.from([0xe9]));
	},
};

/** Where nobody listens. */
export async function nobody(): Promise<string> {
	return `127.0.0.1:${await freePort()}`;
}

async function freePort(): Promise<number> {
	const probe = createTcpServer();
	await listen(probe);
	const { port } = probe.address() as AddressInfo;
	await new Promise((closed) => probe.close(closed));
	return port;
}

async function listen(server: Server): Promise<void> {
	await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
}
