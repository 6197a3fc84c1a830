// `make web`: starts the stack, says where it is, and stops it at Ctrl-C.
// WEB_PORT is the port of the page, WEB_HOME the directory that everything is in until then.

import { ACCOUNTS, PASSWORD } from './accounts.ts';
import { start, type Stack } from './stack.ts';

const home = process.env.WEB_HOME || new URL('../../.demo-web', import.meta.url).pathname;
let stack: Stack | undefined;
let stopping = false;
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
	process.on(signal, async () => {
		if (stopping) return;
		stopping = true;
		console.log('\nStopping.');
		await starting.catch(() => {});
		await stack?.stop();
		process.exit(0);
	});
}

const starting = start({ home, port: Number(process.env.WEB_PORT || 8420) });
try {
	stack = await starting;
} catch (error) {
	if (stopping) process.exit(0);
	console.error(String(error instanceof Error ? error.message : error));
	process.exit(1);
}
console.log(`
The page:  ${stack.url}

${ACCOUNTS.map((account) => `  ${account.email.padEnd(18)} ${account.name} ${account.does}`).join('\n')}
  password: ${PASSWORD} (a local issuer of tokens, for this demo only)

  the DBA:  ${stack.home}/bin/psql -h ${stack.home}/server -U postgres meshhook
  the API:  ${stack.supabaseUrl}   logs: ${stack.home}/*.log, ${stack.home}/server/log

Ctrl-C stops it all and removes its files.`);
