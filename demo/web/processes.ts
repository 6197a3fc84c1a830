// Running programs: to their end, and beside us.

import { spawn, type ChildProcess } from 'node:child_process';
import { openSync, closeSync, readFileSync } from 'node:fs';

/** Runs a program to its end, whatever signals we get; what it prints. */
export async function run(command: string, args: string[], input?: string): Promise<string> {
	const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], detached: true });
	let out = '', err = '';
	child.stdout.setEncoding('utf8').on('data', (text) => (out += text));
	child.stderr.setEncoding('utf8').on('data', (text) => (err += text));
	child.stdin.on('error', () => {}).end(input);
	const status = await new Promise<number | null>((end, fail) => child.on('error', fail).on('close', end));
	if (status !== 0) throw new Error(`${command}: status ${status}\n${err}${out}`);
	return out;
}

/** A program that runs beside us, with its output in a file. */
export class Service {
	readonly log: string;
	/** When it has ended, by itself or because it was stopped. */
	readonly ended: Promise<void>;
	#child: ChildProcess;
	#isOver = false;

	constructor(command: string, args: string[], log: string, env: Record<string, string>, cwd?: string) {
		this.log = log;
		const file = openSync(log, 'a', 0o600);
		// A group of its own: Ctrl-C reaches us only, and we stop things in their order.
		this.#child = spawn(command, args, {
			stdio: ['ignore', file, file], detached: true, cwd, env: { PATH: process.env.PATH!, ...env },
		});
		closeSync(file);
		this.ended = new Promise<void>((end) => this.#child.on('error', () => end()).on('exit', () => end())).then(() => {
			this.#isOver = true;
		});
	}

	/** The end of its output. */
	get lastWords(): string {
		return readFileSync(this.log, 'utf8').slice(-2000);
	}

	/** Waits until `ready` says so; throws with the log's end if the program ends, or after a minute. */
	async until(ready: () => Promise<boolean>): Promise<void> {
		const deadline = Date.now() + 60_000;
		while (!(await ready().catch(() => false))) {
			if (this.#isOver || Date.now() > deadline) {
				throw new Error(`${this.#child.spawnfile} does not serve:\n${this.lastWords}`);
			}
			await new Promise((wait) => setTimeout(wait, 100));
		}
	}

	async stop(): Promise<void> {
		this.#child.kill('SIGTERM');
		const kill = setTimeout(() => this.#child.kill('SIGKILL'), 5000);
		await this.ended;
		clearTimeout(kill);
	}
}
