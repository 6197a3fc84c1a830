// Nothing between the database and the caller may keep a revealed value.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ALICE, SHOP, startStack } from './support.ts';

const stack = await startStack();
const { access_token } = await stack.auth.session(ALICE);

/** An answer as it comes, for supabase-js shows no headers. */
function post(name: string, args: object): Promise<Response> {
	return fetch(`${stack.supabaseUrl}/rest/v1/rpc/${name}`, {
		method: 'POST',
		headers: {
			apikey: stack.anonKey, authorization: `Bearer ${access_token}`,
			'content-type': 'application/json', 'content-profile': 'meshhook_secrets',
		},
		body: JSON.stringify({ project_id: SHOP, ...args }),
	});
}

async function cacheControl(name: string, args: object, status = 200): Promise<string | null> {
	const answer = await post(name, args);
	assert.equal(answer.status, status, await answer.text());
	return answer.headers.get('cache-control');
}

test('values are not to be stored', async () => {
	for (const [name, args] of Object.entries<object>({
		secret_get: { name: 'SMTP_PASSWORD' }, secret_get_bytes: { name: 'SMTP_PASSWORD' },
		secret_get_many: { names: ['SMTP_PASSWORD', 'NONE'] },
	})) assert.equal(await cacheControl(name, args), 'no-store', name);
	assert.equal(await cacheControl('secret_get_many', { names: [] }), 'no-store');
	// An answer to GET is what caches are for.
	const query = new URLSearchParams({ project_id: SHOP, name: 'SMTP_PASSWORD' });
	const answer = await fetch(`${stack.supabaseUrl}/rest/v1/rpc/secret_get?${query}`, {
		headers: { apikey: stack.anonKey, authorization: `Bearer ${access_token}`, 'accept-profile': 'meshhook_secrets' },
	});
	assert.deepEqual([answer.status, answer.headers.get('cache-control')], [200, 'no-store']);
});

test('what holds no value is left to the host', async () => {
	assert.equal(await cacheControl('secret_list', {}), null);
	assert.equal(await cacheControl('secret_describe', { name: 'SMTP_PASSWORD' }), null);
	// Also on a connection that has just revealed: the header is the request's.
	for (let repeat = 0; repeat < 5; repeat++) {
		await cacheControl('secret_get', { name: 'SMTP_PASSWORD' });
		assert.equal(await cacheControl('secret_list', {}), null);
	}
});
