// Answers that come late, when the page has gone on: they change nothing that they are not about.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Page, Request } from 'playwright-core';
import { button, choose, dialog, enter, message, more, secretRow, SECRETS, secretsOf } from './app.ts';
import { openBrowser } from './browser.ts';
import { ALICE, NEWSLETTER, OPERATOR, SHOP, signedIn, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();
const alice = await signedIn(stack, ALICE);

async function given(name: string, project_id = SHOP, more: { expires_at?: string } = {}) {
	const { error } = await alice.rpc('secret_put', { project_id, name, value: `value of ${name}`, ...more });
	assert.equal(error, null);
}
const stored = (name: string) => stack.sql(`SELECT project_id FROM meshhook_secrets.project_secrets WHERE name = '${name}'`);

/** Keeps the first such request back until `go`; `there` is when it was sent. */
async function hold(page: Page, wanted: (request: Request) => boolean) {
	let [go, there] = [() => {}, () => {}];
	const gone = new Promise<void>((resolve) => (go = resolve));
	const sent = new Promise<void>((resolve) => (there = resolve));
	let held = false;
	await page.route('**/api/**', async (route) => {
		if (!held && wanted(route.request())) {
			held = true;
			there();
			await gone;
		}
		await route.continue();
	});
	return { go, there: sent };
}

/** From the newsletter's page to the shop's, as a person goes: Back leads to the newsletter again. */
async function throughNewsletterToShop(page: Page) {
	await page.getByRole('main').getByRole('link', { name: "Newsletter" }).click();
	await page.getByText('No secrets yet').waitFor();
	await button(page, /newsletter/).click();
	await page.getByRole('menuitem', { name: "Alice's shop" }).click();
	await secretRow(page, 'SMTP_PASSWORD').waitFor();
}

test('a dialog is about the project that it was opened for', async (t) => {
	const { page } = await enter(t, browser, stack, ALICE, '/?all');
	await throughNewsletterToShop(page);
	await button(page, 'New secret').first().click();
	const form = dialog(page, 'New secret');
	await form.getByLabel('Name').fill('ASTRAY');
	await form.getByLabel('Value', { exact: true }).fill('for the shop only');
	await page.goBack();
	await page.waitForURL(`**${secretsOf(NEWSLETTER)}`);
	await form.waitFor({ state: 'detached' });
	await page.goForward();
	await secretRow(page, 'SMTP_PASSWORD').waitFor();
	assert.equal(await form.count(), 0);
	assert.equal(await stored('ASTRAY'), '');
});

test('a late answer closes no other dialog, and is not told about another project', async (t) => {
	const { page } = await enter(t, browser, stack, ALICE, '/?all');
	await throughNewsletterToShop(page);
	await button(page, 'New secret').first().click();
	const form = dialog(page, 'New secret');
	await form.getByLabel('Name').fill('LATE');
	await form.getByLabel('Value', { exact: true }).fill('x');
	const { go, there } = await hold(page, (request) => request.method() === 'POST');
	await button(form, 'Create secret').click();
	await there;
	await page.goBack();
	await form.waitFor({ state: 'detached' });
	await page.getByText('No secrets yet').waitFor();
	await button(page, 'New secret').first().click();
	await form.getByLabel('Name').fill('STILL_TYPING');
	go();
	await message(page, 'LATE is stored.').waitFor();
	assert.equal(await form.getByLabel('Name').inputValue(), 'STILL_TYPING');
	assert.equal(await stored('LATE'), SHOP);
	await button(form, 'Cancel').click();
	await page.getByText('No secrets yet').waitFor();
});

test('a dialog does not close while it is at work', async (t) => {
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	await given('AT_WORK');
	/** What one can do to get rid of a dialog. */
	const persist = async (name: string | RegExp) => {
		const form = dialog(page, name);
		await page.keyboard.press('Escape');
		for (const way of ['Cancel', 'Close']) {
			if (await button(form, way).count()) await button(form, way).click({ force: true });
		}
		await page.mouse.click(3, 3);
		await page.waitForTimeout(300);
		assert.equal(await form.count(), 1, String(name));
	};
	const isWrite = (request: Request) => request.method() !== 'GET';

	await button(page, 'New secret').first().click();
	await dialog(page, 'New secret').getByLabel('Name').fill('SLOW');
	await dialog(page, 'New secret').getByLabel('Value', { exact: true }).fill('x');
	let { go, there } = await hold(page, isWrite);
	await button(dialog(page, 'New secret'), 'Create secret').click();
	await there;
	await persist('New secret');
	go();
	await message(page, 'SLOW is stored.').waitFor();
	await dialog(page, 'New secret').waitFor({ state: 'detached' });

	await more(page, 'SLOW', 'Change expiry');
	await choose(dialog(page, 'Expiry of SLOW'), 'Expires', 'In 30 days');
	({ go, there } = await hold(page, isWrite));
	await button(dialog(page, 'Expiry of SLOW'), 'Save').click();
	await there;
	await persist('Expiry of SLOW');
	go();
	await dialog(page, 'Expiry of SLOW').waitFor({ state: 'detached' });

	await more(page, 'SLOW', 'Delete');
	const question = dialog(page, 'Delete SLOW?');
	await question.getByLabel('Type SLOW to confirm').fill('SLOW');
	({ go, there } = await hold(page, isWrite));
	await button(question, 'Delete').click();
	await there;
	await persist('Delete SLOW?');
	go();
	await message(page, 'SLOW is deleted.').waitFor();
	await question.waitFor({ state: 'detached' });

	// And otherwise it does.
	await more(page, 'AT_WORK', 'Change expiry');
	await page.keyboard.press('Escape');
	await dialog(page, 'Expiry of AT_WORK').waitFor({ state: 'detached' });
});

test('the next page of a list that has changed meanwhile is not added to it', async (t) => {
	const name = (n: number) => `MANY_${String(n).padStart(3, '0')}`;
	for (let n = 1; n <= 60; n++) await given(name(n), NEWSLETTER);
	t.after(() => stack.sql(`SELECT count(meshhook_secrets.secret_purge(project_id, name, name))
		FROM meshhook_secrets.project_secrets WHERE project_id = '${NEWSLETTER}'`));
	const { page } = await enter(t, browser, stack, ALICE, secretsOf(NEWSLETTER));
	const { go, there } = await hold(page, (request) => request.url().includes('after='));
	await button(page, 'Load more').click();
	await there;
	await more(page, name(1), 'Delete');
	const question = dialog(page, /^Delete/);
	await question.getByLabel(/^Type/).fill(name(1));
	await button(question, 'Delete').click();
	await secretRow(page, name(1)).waitFor({ state: 'detached' });
	await secretRow(page, name(51)).waitFor();
	const answered = page.waitForResponse(/after=/);
	go();
	await answered;
	await page.getByRole('button', { name: 'Load more', exact: true, disabled: false }).click();
	await secretRow(page, name(60)).waitFor();
	const shown = await page.getByRole('rowheader').allInnerTexts();
	assert.deepEqual(shown.map((text) => text.split('\n')[0]), Array.from({ length: 59 }, (_, n) => name(n + 2)));
});

test('keys are looked at while they are shown only', async (t) => {
	const { page } = await enter(t, browser, stack, OPERATOR, '/audit');
	await page.clock.install();
	let looks = 0;
	page.on('request', (request) => request.url().endsWith('/kek/status') && looks++);
	const navigation = page.getByRole('navigation', { name: 'Main' });
	await navigation.getByRole('link', { name: 'Keys' }).click();
	await page.getByRole('heading', { name: 'Healthy' }).waitFor();
	const { go, there } = await hold(page, (request) => request.url().endsWith('/kek/status'));
	await page.clock.fastForward('01:01');
	await there;
	assert.equal(looks, 2);
	await navigation.getByRole('link', { name: 'Audit log' }).click();
	await page.getByRole('heading', { name: 'Audit log' }).waitFor();
	const answered = page.waitForResponse(/kek\/status/);
	go();
	await answered;
	for (let minute = 0; minute < 3; minute++) {
		await page.waitForTimeout(100);
		await page.clock.fastForward('01:01');
	}
	assert.equal(looks, 2);
});

test('somebody else was faster at rolling back: the versions are those of now', async (t) => {
	await given('RACED');
	await given('RACED');
	const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
	await more(page, 'RACED', 'Versions');
	await button(dialog(page, 'Versions of RACED'), 'Roll back to version 1').click();
	const question = dialog(page, 'Roll back to version 1?');
	await question.getByText('Its value becomes version 3').waitFor();
	await given('RACED');
	await button(question, 'Roll back').click();
	await question.getByRole('alert').waitFor();
	await traffic.expect(/409/);
	await question.getByText('Its value becomes version 4').waitFor();
	await button(question, 'Roll back').click();
	await message(page, 'RACED is rolled back: its value is now version 4.').waitFor();
});

test('an expiry that is saved as it was stays as it was', async (t) => {
	const exact = new Date(Date.now() + 86_400_000);
	exact.setSeconds(42, 678);
	await given('EXACT', SHOP, { expires_at: exact.toISOString() });
	await given('FAR', SHOP, { expires_at: '12026-01-01T00:00:00Z' });
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	const writes: string[] = [];
	page.on('request', (request) => request.method() === 'PATCH' && writes.push(request.url()));
	for (const name of ['EXACT', 'FAR']) {
		await more(page, name, 'Change expiry');
		await button(dialog(page, `Expiry of ${name}`), 'Save').click();
		await dialog(page, `Expiry of ${name}`).waitFor({ state: 'detached' });
	}
	const { data } = await alice.rpc('secret_describe', { project_id: SHOP, name: 'EXACT' });
	assert.equal(Date.parse(data!.expires_at!), exact.getTime());

	// A year of five digits is one that the field takes otherwise, and JavaScript does not read.
	await more(page, 'EXACT', 'Change expiry');
	const form = dialog(page, 'Expiry of EXACT');
	await form.getByLabel('Date and time').fill('12026-01-01T00:00');
	await button(form, 'Save').click();
	await page.waitForTimeout(300);
	assert.equal(await form.getByText('could not be reached').count(), 0);
	assert.equal(await form.count(), 1);
	assert.deepEqual(writes, []);
});
