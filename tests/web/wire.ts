// What travels between supabase-js and the database: calls whose answers are compared with the catalog.

import assert from 'node:assert/strict';
import type { MeshhookSecrets } from '../../examples/supabase/meshhook-secrets.types.ts';
import type { Column, Routine } from './catalog.ts';
import type { asService } from './support.ts';

export type Api = ReturnType<typeof asService>;
export type Functions = MeshhookSecrets['meshhook_secrets']['Functions'];
export type Name = keyof Functions;
export type Call = { name: Name; args: object; answer: unknown };

/** Calls by any name with any arguments, as JavaScript without types could. */
export const raw = (api: Api, name: string, args: object = {}, options: object = {}) =>
	api.rpc(name as Name, args as never, options);

/** The answer of a call that succeeds, whose form is looked at, and which `calls` remembers. */
export async function call<N extends Name>(
	api: Api, catalog: Map<string, Routine>, calls: Call[], name: N, args: Functions[N]['Args'],
): Promise<Functions[N]['Returns']> {
	const { data, error } = await raw(api, name, args);
	assert.equal(error, null, `${name}: ${error?.message}`);
	const routine = catalog.get(name);
	assert.ok(routine, name);
	looksLike(routine, data);
	calls.push({ name, args, answer: data });
	return data as Functions[N]['Returns'];
}

/** An array of objects for rows, an object for a composite, a bare value for a scalar, null for void. */
function looksLike(routine: Routine, answer: unknown): void {
	const { name, columns, many, result } = routine;
	assert.equal(Array.isArray(answer), many, `${name}: ${JSON.stringify(answer)}`);
	if (columns.length === 0) return isValue({ name, type: result }, answer);
	for (const row of (many ? answer : [answer]) as Record<string, unknown>[]) {
		assert.deepEqual(Object.keys(row).sort(), columns.map((column) => column.name).sort(), name);
		for (const column of columns) if (row[column.name] !== null) isValue(column, row[column.name]);
	}
}

/** ISO 8601 with a time zone: without one, Date would take it for local time. */
const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?([+-]\d\d:\d\d|Z)$/;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

const VALUES: Record<string, (value: any) => boolean> = {
	integer: Number.isSafeInteger,
	bigint: Number.isSafeInteger,
	'double precision': Number.isFinite,
	boolean: (value) => typeof value === 'boolean',
	text: (value) => typeof value === 'string',
	uuid: (value) => UUID.test(value),
	bytea: (value) => /^\\x([0-9a-f]{2})*$/.test(value),
	'timestamp with time zone': (value) => TIME.test(value) && Number.isFinite(Date.parse(value)),
	jsonb: (value) => value !== undefined,
	'text[]': (value) => Array.isArray(value) && value.every((item) => typeof item === 'string'),
	void: (value) => value === null,
};

function isValue({ name, type }: Column, value: unknown): void {
	const is = VALUES[type];
	assert.ok(is, `a type that no test knows: ${type}`);
	assert.ok(is(value), `${name} is no ${type}: ${JSON.stringify(value)}`);
}
