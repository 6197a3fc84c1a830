// Everything that the web page needs, on this machine: a database, its gateway, Auth's stand-in and the page itself.
// `make web` starts it for people, the tests in tests/web for themselves.

import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, realpathSync, symlinkSync } from 'node:fs';
import { createServer, type AddressInfo } from 'node:net';
import { ACCOUNTS } from './accounts.ts';
import { serveApi } from './api.ts';
import { createAuth, type Auth } from './auth.ts';
import { run, Service } from './processes.ts';
import { sign, type Claims } from './tokens.ts';

const root = realpathSync(new URL('../..', import.meta.url));
const PAGE = `${root}/examples/sveltekit`;
const MIGRATIONS = [`${root}/examples/supabase/migrations/20261122000000_meshhook_secrets.sql`, `${root}/demo/web/seed.sql`];
const EXPOSED_SCHEMAS = 'public,meshhook_secrets';
const YEAR = 365 * 24 * 3600;

export interface Stack {
	/** The web page; empty without it. */
	url: string;
	/** What supabase-js is given as Supabase's address, and its two keys. */
	supabaseUrl: string;
	anonKey: string;
	serviceRoleKey: string;
	auth: Auth;
	/** A token with any claims, as one who holds the project's JWT secret could make. */
	token(claims: Claims, seconds?: number): string;
	/** Runs SQL with psql as superuser, or as another user; the rows as text, fields separated by |. */
	sql(text: string, user?: string): Promise<string>;
	/** Where everything is: `server/` with the database's socket, log and root key, `*.log` of the rest. */
	home: string;
	/** The first of the gateway and the page that ends, though nobody stopped it. */
	broken: Promise<Service>;
	stop(): Promise<void>;
}

export interface Options {
	/** A directory that becomes the demo's and is removed by `stop`. */
	home: string;
	/** The page's port; 0 for a free one. Without it there is no page. */
	port?: number;
}

export async function start({ home, port }: Options): Promise<Stack> {
	const undo: (() => Promise<unknown>)[] = [];
	const stop = async () => {
		for (let next; (next = undo.pop()); ) await next();
	};
	try {
		if (port) await freePort(port);
		undo.push(() => run(`${root}/demo/stop`, ['--quiet', home]));
		await run(`${root}/demo/server`, [home]);
		home = realpathSync(home);
		// By this directory `demo/stop` knows them, should we be killed.
		const services = `${home}/services`;
		mkdirSync(services);
		const psql = (user: string, file: string, input?: string) =>
			run(`${home}/bin/psql`, ['-h', `${home}/server`, '-U', user, '-d', 'meshhook', '-XqAt', '-v', 'ON_ERROR_STOP=1', '-f', file], input);
		const sql = async (text: string, user = 'postgres') => (await psql(user, '-', text)).trimEnd();
		for (const file of MIGRATIONS) await psql('postgres', file);

		const secret = randomBytes(32).toString('hex');
		const token = (claims: Claims, seconds = YEAR) => sign(claims, secret, seconds);
		const socket = `${home}/gateway.socket`;
		const gateway = new Service((await run(`${root}/scripts/gateway`, [])).trim(), [], `${home}/gateway.log`, {
			// As a URL: the user, and the socket's directory, whose slashes are encoded.
			PGRST_DB_URI: `postgres://authenticator@${encodeURIComponent(`${home}/server`)}/meshhook`,
			PGRST_DB_SCHEMAS: EXPOSED_SCHEMAS,
			PGRST_DB_ANON_ROLE: 'anon',
			PGRST_DB_PREPARED_STATEMENTS: 'false',
			PGRST_DB_CHANNEL_ENABLED: 'true',
			PGRST_JWT_SECRET: secret,
			PGRST_COMPAT_MODE: 'true',
			PGRST_SERVER_UNIX_SOCKET: socket,
		}, services);
		const running = [gateway];
		undo.push(() => gateway.stop());
		await gateway.until(async () => existsSync(socket));

		const api = await serveApi(socket);
		undo.push(async () => {
			api.server.closeAllConnections();
			await new Promise((closed) => api.server.close(closed));
		});
		const hook = (event: string) =>
			sql(`SELECT public.meshhook_access_token_hook('${event.replaceAll("'", "''")}');`);
		const auth = createAuth(secret, `${api.url}/auth/v1`, hook);
		api.auth(auth);
		const anonKey = token({ role: 'anon' });
		await gateway.until(async () => (await fetch(`${api.url}/rest/v1/projects?limit=0`, { headers: { apikey: anonKey } })).status < 500);

		let url = '';
		if (port !== undefined) {
			const chosen = port || (await freePort(0));
			url = `http://localhost:${chosen}`;
			// A copy: the next build empties the directory of this one.
			cpSync(`${PAGE}/build`, `${home}/page/build`, { recursive: true });
			symlinkSync(`${PAGE}/node_modules`, `${home}/page/node_modules`);
			cpSync(`${PAGE}/package.json`, `${home}/page/package.json`);
			const page = new Service(process.execPath, [`${home}/page/build/index.js`], `${home}/page.log`, {
				HOST: '127.0.0.1',
				PORT: String(chosen),
				ORIGIN: url,
				BODY_SIZE_LIMIT: '1536K', // as npm start sets it
				PUBLIC_SUPABASE_URL: api.url,
				PUBLIC_SUPABASE_ANON_KEY: anonKey,
				DEMO_ACCOUNTS: JSON.stringify(ACCOUNTS.map(({ email, name, does }) => ({ email, name, does }))),
			}, services);
			running.push(page);
			undo.push(() => page.stop());
			await page.until(async () => (await fetch(url, { redirect: 'manual' })).status < 500);
		}
		const broken = Promise.race(running.map((service) => service.ended.then(() => service)));
		return { url, supabaseUrl: api.url, anonKey, serviceRoleKey: token({ role: 'service_role' }), auth, token, sql, home, broken, stop };
	} catch (error) {
		await stop();
		throw error;
	}
}

/** This port, or any for 0, if we may listen there. */
async function freePort(wanted: number): Promise<number> {
	const probe = createServer();
	await new Promise<void>((listening, fail) => {
		probe.once('error', ({ code }: NodeJS.ErrnoException) => {
			const why = code === 'EADDRINUSE' ? 'is in use' : `cannot be used (${code})`;
			fail(new Error(`Port ${wanted} ${why}. Choose another one with WEB_PORT.`));
		});
		probe.listen(wanted, '127.0.0.1', listening);
	});
	const { port } = probe.address() as AddressInfo;
	await new Promise((closed) => probe.close(closed));
	return port;
}
