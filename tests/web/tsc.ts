// The TypeScript compiler, on files made by tests.

import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const TSC = fileURLToPath(new URL('node_modules/.bin/tsc', import.meta.url));

/** The types that users copy. */
export const TYPES = readFileSync(
	new URL('../../examples/supabase/meshhook-secrets.types.ts', import.meta.url), 'utf8');

/** Compiles these files in a directory of their own; what the compiler says, a line each. */
export function compile(files: Record<string, string>): string[] {
	const directory = mkdtempSync('/tmp/meshhook_secrets-tsc.');
	try {
		for (const [name, text] of Object.entries(files)) {
			mkdirSync(dirname(join(directory, name)), { recursive: true });
			writeFileSync(join(directory, name), text);
		}
		const options = ['--noEmit', '--strict', '--target', 'esnext', '--lib', 'esnext', '--module', 'preserve',
			'--allowImportingTsExtensions', '--pretty', 'false'];
		const { status, stdout, stderr, error } =
			spawnSync(TSC, [...options, ...Object.keys(files)], { cwd: directory, encoding: 'utf8' });
		if (error) throw error;
		const lines = (stdout + stderr).split('\n').filter(Boolean);
		if ((status === 0) !== (lines.length === 0)) throw new Error(`tsc ended with ${status}\n${lines.join('\n')}`);
		return lines;
	} finally {
		rmSync(directory, { recursive: true });
	}
}
