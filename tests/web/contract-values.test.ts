// Values come back as they went: text, bytes and JSON.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import type { Json } from '../../examples/supabase/meshhook-secrets.types.ts';
import { ALICE, asService, SHOP, signedIn, startStack } from './support.ts';
import { raw } from './wire.ts';

const stack = await startStack();
const alice = await signedIn(stack, ALICE);
const service = asService(stack);
const secret = { project_id: SHOP, name: 'VALUE' };

async function done<T>(answer: PromiseLike<{ error: unknown; data: T }>): Promise<T> {
	const { error, data } = await answer;
	assert.equal(error, null);
	return data;
}

const TEXTS: Record<string, string> = {
	empty: '',
	blank: ' \t\n ',
	'quotes and backslashes': `'"\\\\ \\x00 \\u0000 $1 $$ E'' -- /* ; */ %s {{}}`,
	'lines of both kinds': '-----BEGIN KEY-----\r\nabc\n-----END KEY-----\n',
	'looks like JSON': '{"a":[null,true,1.0]}',
	'looks like null': 'null',
	'looks like a number': '0012345678901234567890.10',
	'looks like an array of PostgreSQL': '{a,"b",NULL}',
	'outside the BMP and combined': 'Grüße, 世界 👩‍👩‍👧 e\u0301 \u{10FFFF} \u202E \uFEFF',
	'line separators': 'a\u2028b\u2029c\u0085d',
	'64 KiB of ASCII': 'k'.repeat(65_536),
	'64 KiB of characters with four bytes': '🔑'.repeat(16_384),
};

for (const [what, value] of Object.entries(TEXTS)) {
	test(`text: ${what}`, async () => {
		await done(raw(alice, 'secret_put', { ...secret, value }));
		assert.equal(await done(raw(alice, 'secret_get', secret)), value);
		assert.equal(await done(raw(service, 'secret_get', secret)), value);
		const [row] = await done(service.rpc('secret_get_many', { project_id: SHOP, names: ['VALUE'] })) ?? [];
		assert.deepEqual({ ...row, version: 0 }, { name: 'VALUE', value, version: 0, status: 'ok' });
		const hex = Buffer.from(value).toString('hex');
		assert.equal(await done(raw(alice, 'secret_get_bytes', secret)), `\\x${hex}`);
	});
}

for (const [what, bytes] of Object.entries({
	none: Buffer.alloc(0),
	each: Buffer.from(Array.from({ length: 256 }, (_, index) => index)),
	'64 KiB': randomBytes(65_536),
})) {
	test(`bytes: ${what}`, async () => {
		const value = `\\x${bytes.toString('hex')}`;
		await done(raw(alice, 'secret_put_bytes', { ...secret, value }));
		assert.equal(await done(raw(alice, 'secret_get_bytes', secret)), value);
	});
}

test('an empty text is a value, and not null', async () => {
	await done(raw(alice, 'secret_put', { ...secret, value: '' }));
	const rows = await done(service.rpc('secret_get_many', { project_id: SHOP, names: ['VALUE', 'NONE'] }));
	assert.deepEqual(rows?.map(({ value }) => value), ['', null]);
	// So is an empty description; none is null.
	await done(raw(alice, 'secret_put', { project_id: SHOP, name: 'EMPTY', value: '', description: '' }));
	assert.equal((await done(alice.rpc('secret_describe', { project_id: SHOP, name: 'EMPTY' })))?.description, '');
	await done(raw(alice, 'secret_put', { project_id: SHOP, name: 'NULL', value: '' }));
	assert.equal((await done(alice.rpc('secret_describe', { project_id: SHOP, name: 'NULL' })))?.description, null);
});

test('metadata', async () => {
	const all: Json[] = [
		{}, [], '', 'text', 0, -1.5, 1e21, true, false,
		{ owner: 'Zoë', tags: ['a', 'b', null], nested: { deep: [{ a: null }] }, '': 1, 'key with "quotes"': '\\ \n' },
	];
	for (const metadata of all) {
		await done(raw(alice, 'secret_put', { ...secret, value: 'v', metadata }));
		assert.deepEqual((await done(alice.rpc('secret_describe', secret)))?.metadata, metadata);
		const [row] = await done(alice.rpc('secret_list', { project_id: SHOP, search: 'VALUE' })) ?? [];
		assert.deepEqual(row.metadata, metadata);
	}
	// What is left out stays.
	await done(raw(alice, 'secret_put', { ...secret, value: 'v' }));
	assert.deepEqual((await done(alice.rpc('secret_describe', secret)))?.metadata, all.at(-1));
});

test('a time in any zone is the same time', async () => {
	for (const expires_at of ['2090-06-01T12:00:00+05:30', '2090-06-01T06:30:00Z', '2090-05-31T23:30:00.000-07:00']) {
		const written = await done(alice.rpc('secret_put', { ...secret, value: 'v', expires_at }));
		assert.equal(new Date(written!.expires_at!).toISOString(), '2090-06-01T06:30:00.000Z');
	}
});
