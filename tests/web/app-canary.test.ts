// Where values are not: two of them go through the whole page, one is never revealed, one is revealed once.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { button, dialog, enter, message, more, open, reveal, SECRETS, shownValue } from './app.ts';
import { openBrowser, remembered } from './browser.ts';
import { ALICE, OPERATOR, SHOP, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();
const build = new URL('../../examples/sveltekit/build', import.meta.url).pathname;

/** The files below a directory that hold this text, also as hexadecimal digits or in Base64. */
function filesHolding(text: string, directory: string): string[] {
	const bytes = Buffer.from(text);
	// Base64 looks different at each of three offsets; what depends on neighbours is cut off.
	const base64 = [0, 1, 2].map((offset) => Buffer.concat([Buffer.alloc(offset), bytes]).toString('base64').slice(offset ? 4 : 0, -4));
	const forms = [text, bytes.toString('hex'), ...base64].map((form) => Buffer.from(form));
	return readdirSync(directory, { recursive: true, encoding: 'utf8' }).filter((name) => {
		const path = `${directory}/${name}`;
		if (!lstatSync(path, { throwIfNoEntry: false })?.isFile()) return false;
		const content = readFileSync(path);
		return forms.some((form) => content.includes(form));
	});
}

/** The files of the stack, the database's own included, and of the page's build that hold this text. */
const searched = async (text: string) => {
	await stack.sql('CHECKPOINT');
	return [...filesHolding(text, stack.home), ...filesHolding(text, build)];
};

test('a planted value is found', async () => {
	const value = `planted-${randomUUID()}`;
	assert.deepEqual(await searched(value), []);
	writeFileSync(`${stack.home}/planted.log`, Buffer.from(`..${value}`).toString('base64'));
	writeFileSync(`${build}/client/planted.js`, `const x = '${value}'`);
	await stack.sql(`CREATE TABLE planted AS SELECT '${value}' AS value`);
	const found = await searched(value);
	rmSync(`${stack.home}/planted.log`);
	rmSync(`${build}/client/planted.js`);
	for (const file of [/^planted\.log$/, /^client\/planted\.js$/, /^server\/data\/base\//, /^server\/data\/pg_wal\//]) {
		assert.ok(found.some((name) => file.test(name)), `${file} in ${found}`);
	}
});

test('a value is where it is revealed, and nowhere else', async (t) => {
	// Whatever the server could log, it logs.
	await stack.sql("ALTER SYSTEM SET log_statement = 'all'");
	await stack.sql('ALTER SYSTEM SET log_min_duration_statement = 0');
	await stack.sql('SELECT pg_reload_conf()');
	const [never, once] = [`never-${randomUUID()}`, `once-${randomUUID()}`];
	const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);

	for (const [name, value] of [['NEVER', never], ['ONCE', once]]) {
		await button(page, 'New secret').click();
		const form = dialog(page, 'New secret');
		await form.getByLabel('Name').fill(name);
		await form.getByLabel('Value', { exact: true }).fill(value);
		await button(form, 'Create secret').click();
		await message(page, `${name} is stored.`).waitFor();
		await form.waitFor({ state: 'detached' });
	}
	// Refused, and given up.
	await more(page, 'NEVER', 'New version');
	const form = dialog(page, 'New version of NEVER');
	await form.getByLabel('Value', { exact: true }).fill(never);
	await stack.sql(`SELECT meshhook_secrets.secret_put('${SHOP}', 'NEVER', 'another')`);
	await button(form, 'Save version 2').click();
	await form.getByRole('alert').waitFor();
	await traffic.expect(/409/);
	await button(form, 'Cancel').click();
	await form.waitFor({ state: 'detached' });

	assert.equal(await reveal(page, 'ONCE'), once);
	assert.ok((await remembered(page)).includes(once), 'what is shown can be found');
	await button(page, 'Hide').click();
	await shownValue(page, 'ONCE').waitFor({ state: 'detached' });
	assert.ok(!(await remembered(page)).includes(once));

	// Everywhere else that one can go.
	const paths = ['/', '/?all', SECRETS, `${SECRETS}?include_deleted=true&search=ONCE`, `/projects/${SHOP}/audit`, `/projects/${SHOP}/audit?name=ONCE`, '/nowhere'];
	for (const path of paths) {
		await page.goto(path);
		const memory = await remembered(page);
		for (const value of [never, once]) assert.ok(!memory.includes(value), path);
		const cookie = (await page.context().cookies()).map(({ name, value }) => `${name}=${value}`).join('; ');
		for (const address of [path, `${path.replace(/(\?|$)/, '/__data.json$1')}`]) {
			const html = await (await fetch(stack.url + address, { headers: { cookie } })).text();
			for (const value of [never, once]) assert.ok(!html.includes(value), address);
		}
	}
	await traffic.expect(/404/);
	await open(page, SECRETS);
	await more(page, 'ONCE', 'Versions');
	await dialog(page, 'Versions of ONCE').getByText('v1', { exact: true }).waitFor();

	const operator = await enter(t, browser, stack, OPERATOR, '/audit');
	await operator.page.getByRole('row').filter({ hasText: 'ONCE' }).first().waitFor();
	await operator.page.goto('/keys');
	await operator.page.getByRole('heading', { name: 'Healthy' }).waitFor();

	const id = await stack.sql("SELECT id FROM meshhook_secrets.project_secrets WHERE name = 'ONCE'");
	assert.deepEqual(await traffic.holding(once), [`POST /api/projects/${SHOP}/secrets/${id}/reveal`]);
	for (const window of [traffic, operator.traffic]) assert.deepEqual(await window.holding(never), []);
	assert.deepEqual(await operator.traffic.holding(once), []);
	for (const value of [never, once]) assert.deepEqual(await searched(value), []);
	// The logs that were searched are ones that would have told.
	assert.match(readFileSync(`${stack.home}/server/log`, 'utf8'), /secret_put/);
});
