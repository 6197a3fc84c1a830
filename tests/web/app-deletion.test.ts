// Deleted secrets come back until they are purged; many secrets are searched and come a page at a time.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { ALICES_ID, button, dialog, enter, inRow, message, more, open, recorded, reveal, secretRow, SECRETS, secretsOf } from './app.ts';
import { openBrowser } from './browser.ts';
import { ALICE, NEWSLETTER, SHOP, signedIn, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();
const alice = await signedIn(stack, ALICE);

async function given(name: string, project_id = SHOP) {
	const { error } = await alice.rpc('secret_put', { project_id, name, value: `value of ${name}` });
	assert.equal(error, null);
}

/** Deletes by typing the name. */
async function remove(page: Page, name: string, item = 'Delete') {
	await more(page, name, item);
	const question = dialog(page, new RegExp(`^Delete ${name}`));
	const confirm = button(question, item);
	assert.equal(await confirm.getAttribute('aria-disabled'), 'true');
	await question.getByLabel(`Type ${name} to confirm`).fill(name.slice(1));
	await confirm.click({ force: true });
	assert.equal(await confirm.getAttribute('aria-disabled'), 'true');
	await question.getByLabel(`Type ${name} to confirm`).fill(name);
	await confirm.click();
	await question.waitFor({ state: 'detached' });
}

test('a deleted secret can be undeleted until it is purged', async (t) => {
	await given('DOOMED');
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	await remove(page, 'DOOMED');
	await message(page, 'DOOMED is deleted.').waitFor();
	await secretRow(page, 'DOOMED').waitFor({ state: 'detached' });
	await button(page.getByRole('region', { name: 'Messages' }), 'Undo').click();
	await message(page, 'DOOMED is back.').waitFor();
	assert.equal(await reveal(page, 'DOOMED'), 'value of DOOMED');

	await remove(page, 'DOOMED');
	await secretRow(page, 'DOOMED').waitFor({ state: 'detached' });
	await page.getByRole('switch', { name: 'Show deleted' }).click();
	await inRow(page, 'DOOMED', /Deleted, \d+ days left/).waitFor();
	assert.equal(await button(page, /^Reveal DOOMED: It is deleted/).getAttribute('aria-disabled'), 'true');
	await more(page, 'DOOMED', 'Undelete');
	await inRow(page, 'DOOMED', 'Enabled').waitFor();
	assert.equal(await reveal(page, 'DOOMED'), 'value of DOOMED');

	await remove(page, 'DOOMED');
	await inRow(page, 'DOOMED', 'Deleted').waitFor();
	await remove(page, 'DOOMED', 'Delete for good');
	await message(page, 'DOOMED is gone for good.').waitFor();
	await secretRow(page, 'DOOMED').waitFor({ state: 'detached' });
	assert.equal(await stack.sql("SELECT count(*) FROM meshhook_secrets.project_secrets WHERE name = 'DOOMED'"), '0');

	const records = (await recorded(stack, 'DOOMED')).filter((record) => /delete|purge/.test(record));
	const [deleted, undeleted] = [`secret_delete ok v1 ${ALICES_ID}`, `secret_undelete ok v1 ${ALICES_ID}`];
	assert.deepEqual(records, [deleted, undeleted, deleted, undeleted, deleted, `secret_purge ok v1 ${ALICES_ID}`]);
});

test('secrets are searched, and the search is in the URL', async (t) => {
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	const search = page.getByRole('searchbox', { name: 'Search by name or description' });
	await search.fill('payments');
	await page.waitForURL(/search=payments/);
	await secretRow(page, 'SMTP_PASSWORD').waitFor({ state: 'detached' });
	await secretRow(page, 'STRIPE_SECRET_KEY').waitFor();
	await open(page, page.url());
	await secretRow(page, 'STRIPE_SECRET_KEY').waitFor();
	assert.equal(await search.inputValue(), 'payments');
	assert.equal(await secretRow(page, 'SMTP_PASSWORD').count(), 0);
	await search.fill('nothing like it');
	await page.getByText('No secret has “nothing like it” in its name or description.').waitFor();
	await button(page, 'Clear the search').click();
	await secretRow(page, 'SMTP_PASSWORD').waitFor();
	assert.equal(new URL(page.url()).search, '');
});

test('many secrets come a page at a time', async (t) => {
	const names = Array.from({ length: 120 }, (_, at) => `MANY_${String(at).padStart(3, '0')}`);
	await Promise.all(names.map((name) => given(name, NEWSLETTER)));
	const { page } = await enter(t, browser, stack, ALICE, secretsOf(NEWSLETTER));
	await secretRow(page, 'MANY_049').waitFor();
	const rows = page.getByRole('rowheader');
	assert.equal(await rows.count(), 50);
	const load = button(page, 'Load more');
	await load.click();
	await secretRow(page, 'MANY_099').waitFor();
	await load.click();
	await secretRow(page, 'MANY_119').waitFor();
	await load.waitFor({ state: 'detached' });
	const shown = await rows.allInnerTexts();
	assert.deepEqual(shown.map((text) => text.split(/\s/)[0]), names);
	assert.equal(await reveal(page, 'MANY_119'), 'value of MANY_119');

	// What was changed is seen at once, and what was loaded stays.
	await remove(page, 'MANY_118');
	await secretRow(page, 'MANY_118').waitFor({ state: 'detached' });
	assert.equal(await rows.count(), 119);
});
