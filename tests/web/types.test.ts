// The types that users copy are those of the functions in the database, or tsc says what differs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { readableColumns, readCatalog, type Column, type Routine } from './catalog.ts';
import { startStack } from './support.ts';
import { compile, TYPES } from './tsc.ts';

/** JSON has fewer types than PostgreSQL. */
const TYPE: Record<string, string> = {
	integer: 'number', bigint: 'number', 'double precision': 'number', boolean: 'boolean', jsonb: 'Json', void: 'null',
	text: 'string', 'text[]': 'string[]', uuid: 'string', bytea: 'string', interval: 'string',
	'timestamp with time zone': 'string',
};

function typeOf(type: string): string {
	assert.ok(type in TYPE, `a type that this test does not know: ${type}`);
	return TYPE[type];
}

const objectOf = (columns: Column[]) =>
	`{ ${columns.map(({ name, type }) => `${name}: ${typeOf(type)};`).join(' ')} }`;

function describe(routine: Routine): string {
	const required = routine.arguments.filter((argument) => !argument.optional);
	const result = routine.columns.length > 0 ? objectOf(routine.columns) : typeOf(routine.result);
	return `{ Args: ${objectOf(routine.arguments)}; Required: ${objectOf(required)}; Result: ${result};
		Many: ${routine.many} }`;
}

const QUESTIONS = `
import type { Json, MeshhookSecrets } from './meshhook-secrets.types.ts';
import type { Catalog, Readable } from './catalog.ts';
type Functions = MeshhookSecrets['meshhook_secrets']['Functions'];
type Row = MeshhookSecrets['meshhook_secrets']['Tables']['project_secrets']['Row'];

type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;
/** Record<PropertyKey, never>, for functions without arguments, has none. */
type Keys<T> = string extends keyof T ? never : keyof T;
type RequiredKeys<T> = { [K in Keys<T>]-?: {} extends Pick<T, K> ? never : K }[Keys<T>];
type IsAny<T> = 0 extends 1 & T ? true : false;
/** The same or narrower: a text may be one of a few words. */
type Fits<T, Base> = IsAny<T> extends true ? false : [T] extends [never] ? false : [T] extends [Base] ? true : false;
type Misfits<T, Base> = {
	[K in keyof Base & keyof T]: Fits<T[K], Base[K] | null> extends true ? never : K
}[keyof Base & keyof T];

type Fn = { Args: object; Returns: unknown };
type Known = { Args: object; Required: object; Result: unknown; Many: boolean };
type Problem<F extends Fn, C extends Known> =
	Same<Keys<F['Args']>, keyof C['Args']> extends false ? 'the names of the arguments'
	: Same<RequiredKeys<F['Args']>, keyof C['Required']> extends false ? 'which arguments are required'
	: [Misfits<Required<F['Args']>, C['Args']>] extends [never] ? (
		F['Returns'] extends unknown[]
			? C['Many'] extends true ? ResultProblem<F['Returns'][number], C['Result']> : 'an array, of one value'
			: C['Many'] extends true ? 'no array, of rows' : ResultProblem<F['Returns'], C['Result']>
	) : ['the type of an argument', Misfits<Required<F['Args']>, C['Args']>];

type ResultProblem<R, Result> = Result extends object
	? Same<keyof R, keyof Result> extends false ? 'the names of the columns'
		: [Misfits<R, Result>] extends [never] ? 'nothing' : ['the type of a column', Misfits<R, Result>]
	: Fits<R, Result> extends true ? 'nothing' : 'the type of the result';

/** What is wrong with the types of a function. */
type With<N extends keyof Functions & keyof Catalog> =
	Problem<Functions[N], Catalog[N]> extends 'nothing' ? 'nothing' : [N, Problem<Functions[N], Catalog[N]>];

'nothing' satisfies Same<keyof Functions, keyof Catalog> extends true ? 'nothing'
	: ['functions', Exclude<keyof Functions, keyof Catalog>, Exclude<keyof Catalog, keyof Functions>];
'nothing' satisfies [Exclude<keyof Row, keyof Readable>] extends [never] ? 'nothing'
	: ['no column to read', Exclude<keyof Row, keyof Readable>];
'nothing' satisfies [Misfits<Row, Readable>] extends [never] ? 'nothing'
	: ['the type of a column', Misfits<Row, Readable>];
`;

const stack = await startStack();
// A policy asks member_projects; it is callable, but for nobody's use.
const routines = [...(await readCatalog(stack)).values()]
	.filter(({ callable, name }) => callable && name !== 'member_projects');
const catalog = `import type { Json } from './meshhook-secrets.types.ts';
export type Catalog = {\n${routines.map((routine) => `\t${routine.name}: ${describe(routine)};`).join('\n')}\n};
export type Readable = ${objectOf(await readableColumns(stack))};\n`;
const questions = QUESTIONS + routines.map(({ name }) => `'nothing' satisfies With<'${name}'>;\n`).join('');

/** Files for the compiler: these types in a directory, and the questions about them. */
const ask = (directory: string, types: string) => ({
	[`${directory}/meshhook-secrets.types.ts`]: types,
	[`${directory}/catalog.ts`]: catalog,
	[`${directory}/questions.ts`]: questions,
});

test('the types are those of the database', () => {
	assert.ok(routines.length > 30);
	assert.deepEqual(compile(ask('as_it_is', TYPES)), []);
});

/** A way in which the file could differ from the database, and what the compiler then says. */
type Drift = [what: string, from: string | RegExp, to: string, complaint: RegExp];
const DRIFTS: Drift[] = [
	['an argument is missing', 'version: number; cas?: number }', 'version: number }',
		/"secret_rollback", "the names of the arguments"/],
	['an argument is too many',
		'secret_describe: { Args: OfSecret;', 'secret_describe: { Args: OfSecret & { more?: string };',
		/"secret_describe", "the names of the arguments"/],
	['an argument where there is none', 'kek_generate: { Args: Nothing;', 'kek_generate: { Args: { reason?: string };',
		/"kek_generate", "the names of the arguments"/],
	['an argument has another name', 'include_deleted?:', 'deleted?:', /"secret_list", "the names of the arguments"/],
	['an optional argument is required', 'batch_size?: number', 'batch_size: number',
		/"kek_rewrap", "which arguments are required"/],
	['a required argument is optional', 'confirm: string; wait', 'confirm?: string; wait',
		/"kek_destroy", "which arguments are required"/],
	['an argument has another type', 'length?: number', 'length?: string',
		/"secret_generate", \["the type of an argument", "length"\]/],
	['an argument has any type', 'search?: string', 'search?: any',
		/"secret_list", \["the type of an argument", "search"\]/],
	['a list of arguments is a single one', 'names?: string[]', 'names?: string',
		/"secret_get_many", \["the type of an argument", "names"\]/],
	['a column is missing', '\tis_current: boolean;\n', '', /"secret_versions", "the names of the columns"/],
	['a column is too many', 'is_loaded: boolean;', 'is_loaded: boolean; is_good: boolean;',
		/"root_key_status", "the names of the columns"/],
	['a column has another name', 'seals: number;', 'sealings: number;', /"audit_verify", "the names of the columns"/],
	['a column may be missing', 'seals: number;', 'seals?: number;',
		/"audit_verify", \["the type of a column", "seals"\]/],
	['a column has another type', 'per_second: number | null', 'per_second: string | null',
		/"kek_status", \["the type of a column", "per_second"\]/],
	['a column is a text instead of texts', 'problems: string[]', 'problems: string',
		/"audit_verify", \["the type of a column", "problems"\]/],
	['a scalar has another type', /(dek_rotate: .*)Returns: number/, '$1Returns: string',
		/"dek_rotate", "the type of the result"/],
	['rows are a single one', /(kek_status: .*)Kek\[\]/, '$1Kek', /"kek_status", "no array, of rows"/],
	['a single row is many', /(secret_describe: .*)SecretInfo/, '$1SecretInfo[]',
		/"secret_describe", "an array, of one value"/],
	['void is something', /(secret_purge: .*)Returns: null/, '$1Returns: string',
		/"secret_purge", "the type of the result"/],
	['a function is missing', /\t*doctor: .*\n/, '', /"doctor"/],
	['a function is too many', /(\t*)doctor: .*\n/, '$&$1member_projects: { Args: Nothing; Returns: string[] };\n',
		/"member_projects"/],
	['a column of the table cannot be read', 'current_version: number;', 'current_version: number; value: string;',
		/"no column to read", "value"/],
	['a column of the table has another type', 'current_version: number', 'current_version: boolean',
		/"the type of a column", "current_version"/],
];

test('a difference of any kind is noticed', async (t) => {
	const files = DRIFTS.map(([what, from, to], index) => {
		const types = TYPES.replace(from, to);
		assert.notEqual(types, TYPES, `${what}: ${from} is not in the file`);
		return ask(`drift_${index}`, types);
	});
	const complaints = compile(Object.assign({}, ...files));
	for (const [index, [what, , , complaint]] of DRIFTS.entries()) {
		await t.test(what, () => {
			const about = complaints.filter((line) => line.startsWith(`drift_${index}/questions.ts`));
			assert.match(about.join('\n'), complaint);
		});
	}
});
