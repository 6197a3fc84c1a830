// An operator looks after keys and the audit log.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { parseCsv } from './api.ts';
import { button, choose, dialog, enter, message, open, visit } from './app.ts';
import { openBrowser } from './browser.ts';
import { ALICE, OPERATOR, SHOP, signedIn, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();
const alice = await signedIn(stack, ALICE);

const kek = (page: Page, id: number) => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: String(id), exact: true }) });
const records = (page: Page) => page.getByRole('row').filter({ has: page.getByRole('button', { name: /^Details of/ }) });
const filters = (page: Page) => page.getByRole('search', { name: 'Audit log' });

test('a KEK is rotated, and its progress is seen', async (t) => {
	await stack.sql(`WITH made AS (INSERT INTO public.projects (id, owner, name)
		SELECT gen_random_uuid(), gen_random_uuid(), 'No. ' || n FROM generate_series(1, 100) n RETURNING id) SELECT FROM made`);
	await stack.sql("SELECT count(meshhook_secrets.secret_put(id, 'KEY', 'value')) FROM public.projects WHERE name LIKE 'No. %'");
	await stack.sql('ALTER SYSTEM SET meshhook_secrets.rewrap_batch_size = 5');
	await stack.sql('ALTER SYSTEM SET meshhook_secrets.rewrap_pause = 300');
	await stack.sql('SELECT pg_reload_conf()');

	const { page } = await visit(t, browser, stack);
	await page.goto('/login');
	await button(page, /^Sign in as Olga/).click();
	await page.getByRole('heading', { name: 'Healthy' }).waitFor();
	await kek(page, 1).getByText('Active').waitFor();

	await button(page, 'Rotate').click();
	const question = dialog(page, 'Rotate the KEK?');
	await question.getByLabel('Reason').fill('because of a test');
	await button(question, 'Rotate').click();
	await kek(page, 2).getByText('Active').waitFor();
	await kek(page, 1).getByText('Retiring').waitFor();
	assert.equal(await button(page, 'Rotate').getAttribute('aria-disabled'), 'true');
	const seen = await page.getByRole('progressbar', { name: 'Rotation to KEK 2' }).evaluate((bar) =>
		new Promise<number[]>((ended) => {
			const values = [Number(bar.ariaValueNow)];
			new MutationObserver((_, observer) => {
				if (bar.isConnected) return void values.push(Number(bar.ariaValueNow));
				observer.disconnect();
				ended(values);
			}).observe(document, { subtree: true, childList: true, attributeFilter: ['aria-valuenow'] });
		}),
	);
	const between = new Set(seen.filter((value) => value > 0 && value < 102));
	assert.ok(between.size >= 2, String(seen));
	assert.deepEqual(seen, seen.toSorted((a, b) => a - b));
	await message(page, 'The rotation is finished.').waitFor();
	await kek(page, 1).getByText('Retired').waitFor();
	assert.equal(await button(page, 'Rotate').getAttribute('aria-disabled'), null);
	assert.equal(await stack.sql("SELECT count(*) FROM meshhook_secrets.audit_search(action => 'kek_rotate') a WHERE a::text LIKE '%because of a test%'"), '1');
	assert.ok((await alice.rpc('secret_get', { project_id: SHOP, name: 'SMTP_PASSWORD' })).data);
});

test("the doctor's findings are shown, with what to do", async (t) => {
	const { page } = await enter(t, browser, stack, OPERATOR, '/keys');
	const found = (await stack.sql('SELECT finding FROM meshhook_secrets.doctor() ORDER BY finding')).split('\n');
	assert.ok(found.length > 0);
	const doctor = page.getByRole('region', { name: 'Doctor' });
	await doctor.getByRole('listitem').first().waitFor();
	const shown = await doctor.getByRole('listitem').allInnerTexts();
	for (const finding of found) {
		assert.ok(shown.some((text) => text.toLowerCase().includes(finding.replaceAll('_', ' ').toLowerCase())), finding);
	}
	assert.equal(shown.length, found.length);
	assert.ok(shown.some((text) => /\bbypasses RLS\b/i.test(text) && !/\brls\b/.test(text)), String(shown));
	const remedy = await stack.sql("SELECT finding || '|' || remedy FROM meshhook_secrets.doctor() WHERE severity = 'warning' AND remedy IS NOT NULL LIMIT 1");
	const [name, text] = remedy.split('|');
	const item = doctor.getByRole('listitem').filter({ hasText: new RegExp(name.replaceAll('_', ' '), 'i') }).first();
	await item.getByText(name.replaceAll('_', ' ')).click();
	await item.getByText(text.slice(0, 40)).waitFor();
});

test('the audit log is filtered, paged and exported; no value is in it', async (t) => {
	const value = 'a value that no export holds';
	await alice.rpc('secret_put', { project_id: SHOP, name: 'EXPORTED', value, description: '=1+1' });
	for (let times = 0; times < 60; times++) await alice.rpc('secret_get', { project_id: SHOP, name: 'EXPORTED', purpose: '=cmd|calc' });
	const { page } = await enter(t, browser, stack, OPERATOR, '/audit');

	await filters(page).getByLabel('Secret').fill('EXPORTED');
	await button(filters(page), 'Search').click();
	await page.waitForURL(/name=EXPORTED/);
	await button(page, 'Load older records').waitFor();
	assert.equal(await records(page).count(), 50);
	await button(page, 'Load older records').click();
	await records(page).filter({ hasText: 'secret_put' }).waitFor();
	assert.equal(await records(page).count(), 61);

	await choose(filters(page), 'Action', 'secret_put');
	await page.waitForURL(/action=secret_put/);
	await records(page).filter({ hasText: 'secret_get' }).first().waitFor({ state: 'detached' });
	assert.equal(await records(page).count(), 1);
	await button(page, /^Details of secret_put/).click();
	await page.getByRole('definition').filter({ hasText: SHOP }).waitFor();
	await open(page, page.url());
	await records(page).filter({ hasText: 'secret_put' }).waitFor();
	assert.equal(await filters(page).getByLabel('Secret').inputValue(), 'EXPORTED');
	await choose(filters(page), 'Outcome', 'Denied');
	await page.getByText('No such records').waitFor();

	await open(page, '/audit?name=EXPORTED');
	const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('link', { name: 'Export CSV' }).click()]);
	assert.match(download.suggestedFilename(), /\.csv$/);
	const csv = await readFile(await download.path(), 'utf8');
	assert.ok(!csv.includes(value));
	const [header, ...rows] = parseCsv(csv);
	assert.equal(rows.length, 61);
	const column = (name: string) => rows.map((row) => row[header.indexOf(name)]);
	assert.deepEqual(new Set(column('action')), new Set(['secret_get', 'secret_put']));
	assert.deepEqual(new Set(column('name')), new Set(['EXPORTED']));
	assert.deepEqual(column('purpose').filter(Boolean), Array(60).fill("'=cmd|calc"));
});

test('a changed record is found', async (t) => {
	const { page } = await enter(t, browser, stack, OPERATOR, '/audit');
	await button(page, 'Verify now').click();
	await page.getByRole('heading', { name: 'The log is whole' }).waitFor();

	const id = await stack.sql("SELECT min(id) FROM meshhook_secrets.audit_log WHERE action = 'secret_generate'");
	await stack.sql(`UPDATE meshhook_secrets.audit_log SET claimed_sub = 'nobody' WHERE id = ${id}`);
	await button(page, 'Verify again').click();
	await page.getByRole('heading', { name: 'The log was tampered with' }).waitFor();
	assert.ok((await page.getByRole('list', { name: 'Problems' }).getByRole('listitem').count()) > 0);
});
