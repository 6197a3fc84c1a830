// A member of a project keeps a secret: it is created, masked, revealed for a while, copied; each look is recorded.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ALICES_ID, button, choose, dialog, enter, message, open, recorded, reveal, secretRow, SECRETS, shownValue, signIn, visit } from './app.ts';
import { openBrowser, remembered } from './browser.ts';
import { ALICE, SHOP, signedIn, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();
const alice = await signedIn(stack, ALICE);

/** A secret that is there already. */
async function given(name: string, value = `value of ${name}`) {
	const { error } = await alice.rpc('secret_put', { project_id: SHOP, name, value });
	assert.equal(error, null);
}

test('a secret is created, masked, revealed, and hidden after half a minute', async (t) => {
	const { page } = await visit(t, browser, stack);
	await page.clock.install();
	await signIn(page, ALICE, SECRETS);

	await button(page, 'New secret').click();
	const form = dialog(page, 'New secret');
	await form.getByLabel('Name').fill('my key');
	await form.getByLabel('Value', { exact: true }).fill('created by hand');
	await form.getByText('Use letters, digits and _ . - only.').waitFor();
	await button(form, 'Use my_key').click();
	await form.getByLabel('Description').fill('Made in a test');
	await button(form, 'Create secret').click();
	await message(page, 'my_key is stored.').waitFor();
	await form.waitFor({ state: 'detached' });

	const row = secretRow(page, 'my_key');
	await row.getByText('Made in a test').waitFor();
	await row.getByText('••••••••••••').waitFor();
	assert.ok(!(await remembered(page)).includes('created by hand'));

	assert.equal(await reveal(page, 'my_key'), 'created by hand');
	assert.deepEqual((await recorded(stack, 'my_key')).slice(-2), [`secret_put ok v1 ${ALICES_ID}`, `secret_get ok v1 reveal ${ALICES_ID}`]);
	await page.clock.fastForward('00:20');
	assert.equal(await shownValue(page, 'my_key').inputValue(), 'created by hand');
	await page.getByText('Hides in 10 s.').waitFor();
	await page.clock.fastForward('00:10');
	await shownValue(page, 'my_key').waitFor({ state: 'detached' });
	assert.ok(!(await remembered(page)).includes('created by hand'));
});

test('a name that is taken is refused', async (t) => {
	await given('TAKEN');
	const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
	await button(page, 'New secret').click();
	const form = dialog(page, 'New secret');
	await button(form, 'Create secret').click();
	await form.getByText('Give it a name, like STRIPE_KEY.').waitFor();
	await form.getByText('Enter a value, or let one be generated.').waitFor();
	await form.getByLabel('Name').fill('TAKEN');
	await form.getByLabel('Value', { exact: true }).fill('another');
	await button(form, 'Create secret').click();
	await form.getByRole('alert').getByText('There is a secret of this name already').waitFor();
	await traffic.expect(/409/);
	await button(form, 'Cancel').click();
	assert.equal(await reveal(page, 'TAKEN'), 'value of TAKEN');
});

test('a value is generated, and nobody sees it until it is revealed', async (t) => {
	const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
	await button(page, 'New secret').click();
	const form = dialog(page, 'New secret');
	await form.getByLabel('Name').fill('GENERATED');
	await form.getByRole('radio', { name: 'Generate one' }).click();
	await form.getByLabel('Length').fill('24');
	await choose(form, 'Characters', 'Digits');
	await button(form, 'Create secret').click();
	await message(page, 'GENERATED is stored.').waitFor();
	const value = await reveal(page, 'GENERATED');
	assert.match(value, /^\d{24}$/);
	assert.equal((await traffic.holding(value)).length, 1);
	assert.deepEqual((await recorded(stack, 'GENERATED')).slice(-2), [`secret_generate ok v1 ${ALICES_ID}`, `secret_get ok v1 reveal ${ALICES_ID}`]);
});

test('one value is shown at a time', async (t) => {
	await given('FIRST');
	await given('SECOND');
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	assert.equal(await reveal(page, 'FIRST'), 'value of FIRST');
	assert.equal(await reveal(page, 'SECOND'), 'value of SECOND');
	assert.equal(await shownValue(page, 'FIRST').count(), 0);
	await button(page, 'Hide SECOND').click();
	await shownValue(page, 'SECOND').waitFor({ state: 'detached' });
	assert.ok(!(await remembered(page)).includes('value of SECOND'));
});

test('a value is hidden when one looks elsewhere', async (t) => {
	await given('LEFT');
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	// Playwright lets every page believe that it has the focus.
	const devtools = await page.context().newCDPSession(page);
	await devtools.send('Emulation.setFocusEmulationEnabled', { enabled: false });

	await reveal(page, 'LEFT');
	const other = await page.context().newPage();
	await other.bringToFront();
	await shownValue(page, 'LEFT').waitFor({ state: 'detached' });
	await other.close();
	await page.bringToFront();

	await reveal(page, 'LEFT');
	// Chromium without a screen hides no tabs, so the event of one that is hidden is made here.
	await page.evaluate(() => {
		Object.defineProperty(document, 'hidden', { get: () => true, configurable: true });
		document.dispatchEvent(new Event('visibilitychange'));
	});
	await shownValue(page, 'LEFT').waitFor({ state: 'detached' });
	await open(page, SECRETS);

	await reveal(page, 'LEFT');
	await page.getByRole('link', { name: 'Audit log' }).click();
	await page.getByRole('heading', { name: 'Audit log' }).waitFor();
	assert.ok(!(await remembered(page)).includes('value of LEFT'));
	await page.goBack();
	await secretRow(page, 'LEFT').waitFor();
	assert.equal(await shownValue(page, 'LEFT').count(), 0);
});

test('a value is copied without being shown', async (t) => {
	await given('COPIED');
	const { page } = await enter(t, browser, stack, ALICE, SECRETS, { permissions: ['clipboard-read', 'clipboard-write'] });
	await button(page, 'Copy COPIED without showing it').click();
	await message(page, 'Copied. Recorded in the audit log.').waitFor();
	assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'value of COPIED');
	assert.equal(await shownValue(page, 'COPIED').count(), 0);
	assert.ok(!(await remembered(page)).includes('value of COPIED'));
	assert.equal((await recorded(stack, 'COPIED')).at(-1), `secret_get ok v1 copy ${ALICES_ID}`);

	await reveal(page, 'COPIED');
	await page.evaluate(() => navigator.clipboard.writeText(''));
	await button(page, 'Copy').click();
	await page.waitForFunction(async () => (await navigator.clipboard.readText()) === 'value of COPIED');
	assert.deepEqual((await recorded(stack, 'COPIED')).slice(-2), [`secret_get ok v1 reveal ${ALICES_ID}`, `secret_get ok v1 copy ${ALICES_ID}`]);
});
