// `make web`: starts the stack, says where it is, and stops it at Ctrl-C.
// WEB_PORT is the port of the page, WEB_HOME the directory that everything is in until then.

import { fileURLToPath } from 'node:url';
import { ACCOUNTS, PASSWORD } from './accounts.ts';
import { start } from './stack.ts';

const home = process.env.WEB_HOME || fileURLToPath(new URL('../../.demo-web', import.meta.url));
const port = Number(process.env.WEB_PORT || 8420);

function fail(error: unknown): never {
	console.error(error instanceof Error ? error.message : String(error));
	process.exit(1);
}

if (!(Number.isInteger(port) && port > 0 && port < 65_536)) fail('WEB_PORT must be a number from 1 to 65535.');

let stopping = false;
async function stop(status: number): Promise<void> {
	if (stopping) return;
	stopping = true;
	console.log('\nStopping.');
	const stack = await starting.catch(() => null);
	await stack?.stop().catch(fail);
	process.exit(status);
}
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => stop(0));

const starting = start({ home, port });
const stack = await starting.catch((error) => {
	if (!stopping) fail(error);
	return new Promise<never>(() => {}); // `stop` ends the process
});
console.log(`
The page:  ${stack.url}

${ACCOUNTS.map((account) => `  ${account.email.padEnd(18)} ${account.name} ${account.does}`).join('\n')}
  password: ${PASSWORD} (a local issuer of tokens, for this demo only)

  the DBA:  '${stack.home}/bin/psql' -h '${stack.home}/server' -U postgres meshhook
  the API:  ${stack.supabaseUrl}   logs: ${stack.home}/*.log, ${stack.home}/server/log

Ctrl-C stops it all and removes its files.`);

const broken = await stack.broken;
if (!stopping) {
	console.error(`A part of it has ended:\n${broken.lastWords}`);
	await stop(1);
}
