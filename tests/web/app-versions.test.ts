// Versions of a secret: a new one, two people at once, rolling back, expiry.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ALICES_ID, button, choose, dialog, enter, inRow, message, more, recorded, reveal, SECRETS, shownValue } from './app.ts';
import { openBrowser } from './browser.ts';
import { ALICE, SHOP, signedIn, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();
const alice = await signedIn(stack, ALICE);

async function put(name: string, value: string, more: { expires_at?: string } = {}) {
	const { error } = await alice.rpc('secret_put', { project_id: SHOP, name, value, ...more });
	assert.equal(error, null);
}
const stored = async (name: string) => (await alice.rpc('secret_get', { project_id: SHOP, name })).data;

test('a new version replaces the value', async (t) => {
	await put('EDITED', 'old');
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	await more(page, 'EDITED', 'New version');
	const form = dialog(page, 'New version of EDITED');
	await form.getByLabel('Value', { exact: true }).fill('new');
	await form.getByLabel('Description').fill('Edited once');
	await choose(form, 'The previous version', 'Stops at once');
	await button(form, 'Save version 2').click();
	await message(page, 'Version 2 of EDITED is stored.').waitFor();
	await inRow(page, 'EDITED', 'Edited once').waitFor();
	await inRow(page, 'EDITED', /^v2$/).waitFor();
	assert.equal(await reveal(page, 'EDITED'), 'new');
	assert.deepEqual((await recorded(stack, 'EDITED')).slice(-2), [`secret_put ok v2 ${ALICES_ID}`, `secret_get ok v2 reveal ${ALICES_ID}`]);

	await more(page, 'EDITED', 'Versions');
	const versions = dialog(page, 'Versions of EDITED');
	const first = versions.getByRole('listitem').filter({ hasText: 'v1' });
	await first.getByText('Expired').waitFor();
	assert.equal(await button(first, /^Reveal version 1: This version has expired/).getAttribute('aria-disabled'), 'true');
});

test('two people at once: the second is told, and nothing is overwritten', async (t) => {
	await put('SHARED', 'before');
	const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
	await more(page, 'SHARED', 'New version');
	const form = dialog(page, 'New version of SHARED');
	await form.getByLabel('Value', { exact: true }).fill('mine');
	await put('SHARED', 'theirs');
	await button(form, 'Save version 2').click();
	await form.getByRole('alert').getByText('Somebody else saved a version meanwhile').waitFor();
	await traffic.expect(/409/);
	assert.equal(await stored('SHARED'), 'theirs');

	await button(form, 'Load the current version').click();
	await form.getByText('Version 2 is the current one now. If yours shall replace it, save again.').waitFor();
	assert.equal(await form.getByLabel('Value', { exact: true }).inputValue(), 'mine');
	await button(form, 'Save version 3').click();
	await message(page, 'Version 3 of SHARED is stored.').waitFor();
	assert.equal(await stored('SHARED'), 'mine');
});

test('a secret is rolled back', async (t) => {
	await put('ROLLED', 'the first');
	await put('ROLLED', 'the second');
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	await more(page, 'ROLLED', 'Versions');
	const versions = dialog(page, 'Versions of ROLLED');
	await button(versions, 'Reveal version 1').click();
	assert.equal(await shownValue(page, 'ROLLED, version 1').inputValue(), 'the first');
	assert.equal((await recorded(stack, 'ROLLED')).at(-1), `secret_get ok v1 reveal ${ALICES_ID}`);

	await button(versions, 'Roll back to version 1').click();
	const question = dialog(page, 'Roll back to version 1?');
	await question.getByText('Its value becomes version 3').waitFor();
	assert.equal(await stored('ROLLED'), 'the second');
	await button(question, 'Roll back').click();
	await message(page, 'ROLLED is rolled back: its value is now version 3.').waitFor();
	await versions.getByRole('listitem').filter({ hasText: 'v3' }).getByText('Current').waitFor();
	assert.ok((await recorded(stack, 'ROLLED')).some((record) => record.startsWith('secret_rollback ok')));
	await button(versions, 'Close').click();
	assert.equal(await reveal(page, 'ROLLED'), 'the first');
});

test('a secret expires', async (t) => {
	await put('EXPIRING', 'for a while');
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	await inRow(page, 'EXPIRING', 'Enabled').waitFor();

	await more(page, 'EXPIRING', 'Change expiry');
	const form = dialog(page, 'Expiry of EXPIRING');
	await choose(form, 'Expires', 'In 30 days');
	await button(form, 'Save').click();
	await message(page, 'The expiry of EXPIRING is changed.').waitFor();
	await inRow(page, 'EXPIRING', 'Expires in 30 days').waitFor();
	assert.equal(await reveal(page, 'EXPIRING'), 'for a while');

	await more(page, 'EXPIRING', 'Change expiry');
	await choose(form, 'Expires', 'At once');
	await button(form, 'Save').click();
	await inRow(page, 'EXPIRING', 'Expired').waitFor();
	const off = button(page, 'Reveal EXPIRING: It has expired. Save a new version, or change its expiry.');
	assert.equal(await off.getAttribute('aria-disabled'), 'true');
	await off.click({ force: true });
	assert.equal(await shownValue(page, 'EXPIRING').count(), 0);

	await more(page, 'EXPIRING', 'Change expiry');
	await choose(form, 'Expires', 'Never');
	await button(form, 'Save').click();
	await inRow(page, 'EXPIRING', 'Enabled').waitFor();
	assert.equal(await reveal(page, 'EXPIRING'), 'for a while');
});

test('what expired behind the back of the page is refused', async (t) => {
	await put('LATE', 'for a while', { expires_at: new Date(Date.now() + 3_600_000).toISOString() });
	const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
	await inRow(page, 'LATE', 'Expires within a day').waitFor();
	await alice.rpc('secret_expire', { project_id: SHOP, name: 'LATE', expires_at: new Date().toISOString() });
	await button(page, 'Reveal LATE').click();
	await message(page, 'LATE could not be revealed').waitFor();
	await traffic.expect(/410/);
	await inRow(page, 'LATE', 'Expired').waitFor();
	assert.equal(await shownValue(page, 'LATE').count(), 0);
});
