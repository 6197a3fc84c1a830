// `make web`: it says where the page is, and whichever way it ends, nothing is left of it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { run } from '../../demo/web/processes.ts';

const stopScript = fileURLToPath(new URL('../../demo/stop', import.meta.url));
const main = fileURLToPath(new URL('../../demo/web/main.ts', import.meta.url));

/** A server of ours on a free port. */
async function listen(): Promise<{ server: Server; port: number }> {
	const server = createServer((_, response) => response.end('somebody else'));
	await once(server.listen(0, '127.0.0.1'), 'listening');
	return { server, port: (server.address() as AddressInfo).port };
}

async function freePort(): Promise<number> {
	const { server, port } = await listen();
	await once(server.close(), 'close');
	return port;
}

/** The processes that have something to do with this directory, by what the system knows of them. */
function processesOf(home: string): string[] {
	const read = (of: () => string) => {
		try {
			return of();
		} catch {
			return ''; // it has ended
		}
	};
	return readdirSync('/proc').filter((pid) => /^\d+$/.test(pid) && pid !== String(process.pid)).flatMap((pid) => {
		const command = read(() => readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
		const about = command + read(() => readFileSync(`/proc/${pid}/environ`, 'utf8')) + read(() => readlinkSync(`/proc/${pid}/cwd`));
		return about.includes(home) ? [`${pid} ${command.replaceAll('\0', ' ')}`] : [];
	});
}

function start(t: TestContext, port: number) {
	const home = `/tmp/meshhook_secrets-make.${randomUUID().slice(0, 8)}`;
	// What runs below it has our home in its environment: so it is found.
	const env = { ...process.env, WEB_PORT: String(port), WEB_HOME: home, PATH: `${process.env.PATH}:${home}` };
	const child = spawn(process.execPath, [main], { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true });
	t.after(() => child.kill('SIGTERM'));
	let [said, complained] = ['', ''];
	child.stdout.setEncoding('utf8').on('data', (text) => (said += text));
	child.stderr.setEncoding('utf8').on('data', (text) => (complained += text));
	return {
		home,
		child,
		ended: once(child, 'close') as Promise<[number | null, string | null]>,
		said: () => said,
		complained: () => complained,
		/** Waits until this is printed. */
		async says(text: RegExp): Promise<RegExpMatchArray> {
			for await (const _ of child.stdout) {
				const match = said.match(text);
				if (match) return match;
			}
			throw new Error(`it ended without saying ${text}:\n${said}${complained}`);
		},
	};
}

test('the page is where it says, until Ctrl-C', async (t) => {
	const port = await freePort();
	const web = start(t, port);
	const [, url] = await web.says(/The page: +(\S+)/);
	assert.equal(url, `http://localhost:${port}`);
	const login = await (await fetch(url)).text();
	for (const name of ['Alice', 'Bob', 'Olga']) assert.match(login, new RegExp(`Sign in as ${name}`));
	const running = processesOf(web.home).join('\n');
	for (const program of [/postgres/, /postrust/, /page\/build/]) assert.match(running, program);

	web.child.kill('SIGINT');
	assert.deepEqual(await web.ended, [0, null]);
	assert.deepEqual(processesOf(web.home), []);
	assert.equal(existsSync(web.home), false);
	await assert.rejects(fetch(url));
	assert.equal(web.complained(), '');
});

test('a part that ends by itself is told of, and nothing is left', async (t) => {
	const web = start(t, await freePort());
	await web.says(/The page: /);
	const [gateway] = processesOf(web.home).filter((process) => /postrust/.test(process));
	process.kill(Number(gateway.split(' ')[0]), 'SIGKILL');
	assert.deepEqual(await web.ended, [1, null]);
	assert.match(web.complained(), /^A part of it has ended/);
	assert.deepEqual(processesOf(web.home), []);
	assert.equal(existsSync(web.home), false);
});

test('what a killed one leaves behind, demo/stop clears away', async (t) => {
	const web = start(t, await freePort());
	await web.says(/The page: /);
	web.child.kill('SIGKILL');
	await web.ended;
	assert.notDeepEqual(processesOf(web.home), []);
	await run(stopScript, [web.home]);
	const patience = Date.now() + 10_000;
	while (processesOf(web.home).length && Date.now() < patience) await new Promise((soon) => setTimeout(soon, 50));
	assert.deepEqual(processesOf(web.home), []);
	assert.equal(existsSync(web.home), false);
});

for (const [signal, moment] of [['SIGTERM', 'server/data/PG_VERSION'], ['SIGHUP', 'gateway.log'], ['SIGINT', 'page.log']] as const) {
	test(`${signal} while it starts, when there is ${moment}`, async (t) => {
		const web = start(t, await freePort());
		while (!existsSync(`${web.home}/${moment}`)) await new Promise((soon) => setTimeout(soon, 5));
		assert.equal(web.said(), '');
		web.child.kill(signal);
		assert.deepEqual(await web.ended, [0, null]);
		assert.deepEqual(processesOf(web.home), []);
		assert.equal(existsSync(web.home), false);
	});
}

test('a port that is taken is named, and nothing is left', { timeout: 60_000 }, async (t) => {
	const { server, port } = await listen();
	t.after(() => server.close());
	const web = start(t, port);
	assert.deepEqual(await web.ended, [1, null]);
	assert.match(web.complained(), new RegExp(`^Port ${port} is in use\\.`));
	assert.equal(web.said(), '');
	assert.deepEqual(processesOf(web.home), []);
	assert.equal(existsSync(web.home), false);
});
