// A tour of every page in every state, in light and dark colours: axe-core finds nothing, nothing is cut off.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { button, choose, dialog, enter, message, more, open, reveal, secretRow, SECRETS, secretsOf, shownValue, visit } from './app.ts';
import { assertAccessible, assertFits, openBrowser } from './browser.ts';
import { ALICE, NEWSLETTER, OPERATOR, SHOP, signedIn, startStack } from './support.ts';

async function look(page: Page, where: string): Promise<void> {
	const size = page.viewportSize()!;
	for (const colorScheme of ['light', 'dark'] as const) {
		await page.emulateMedia({ colorScheme });
		await assertAccessible(page, `${where}, ${colorScheme}, ${size.width} px`);
	}
	for (const width of size.width < 600 ? [size.width, 320] : [size.width]) {
		await page.setViewportSize({ ...size, width });
		await assertFits(page, where);
	}
	await page.setViewportSize(size);
}

/** One test for each part of the page, in a window of this size. */
export async function tour(viewport: { width: number; height: number }): Promise<void> {
	const stack = await startStack({ port: 0 });
	const browser = await openBrowser();
	const alice = await signedIn(stack, ALICE);
	const isPhone = viewport.width < 600;
	const close = (page: Page) => page.keyboard.press('Escape');

	test('signing in and projects', async (t) => {
		const { page, traffic } = await visit(t, browser, stack, { viewport });
		await open(page, '/login');
		await look(page, 'signing in');
		await page.getByLabel('Email').fill(ALICE);
		await page.getByLabel('Password').fill('wrong');
		await button(page, 'Sign in').click();
		await page.getByText('The email or the password is wrong.').waitFor();
		await look(page, 'refused');
		await page.getByLabel('Password').fill('demo');
		await button(page, 'Sign in').click();
		await page.getByRole('heading', { name: 'Projects' }).waitFor();
		await look(page, 'projects');
		if (isPhone) await button(page, 'Menu').click();
		await look(page, 'navigation');
		await button(page, /^Project:/).click();
		await page.getByRole('menuitem', { name: 'All projects' }).waitFor();
		await look(page, 'menu of projects');
		await close(page);
		await button(page, /your account/).click();
		await page.getByRole('menuitem', { name: 'Sign out' }).waitFor();
		await look(page, 'menu of the account');

		for (const path of [secretsOf('00000000-0000-4000-8000-000000000000'), '/nowhere']) {
			await open(page, path);
			await page.getByRole('heading', { level: 1 }).waitFor();
			await look(page, path);
		}
		await traffic.expect(/40[34]/);
	});

	test('secrets', async (t) => {
		const long = `VERY_${'LONG_'.repeat(20)}NAME`;
		const much = { value: 'x'.repeat(2000), description: 'Much is said about it. '.repeat(20) };
		for (const { error } of [
			await alice.rpc('secret_put', { project_id: SHOP, name: long, ...much }),
			await alice.rpc('secret_put', { project_id: SHOP, name: 'DELETED', value: 'x' }),
			await alice.rpc('secret_delete', { project_id: SHOP, name: 'DELETED' }),
			await alice.rpc('secret_put', { project_id: SHOP, name: 'EXPIRED', value: 'x' }),
			await alice.rpc('secret_expire', { project_id: SHOP, name: 'EXPIRED', expires_at: new Date().toISOString() }),
		]) assert.equal(error, null);
		const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS, { viewport });
		await secretRow(page, 'SMTP_PASSWORD').waitFor();
		await look(page, 'list');
		await page.getByRole('switch', { name: 'Show deleted' }).click();
		await secretRow(page, 'DELETED').waitFor();
		await look(page, 'list with deleted');
		await reveal(page, long);
		await look(page, 'revealed');
		await button(page, 'More for SMTP_PASSWORD').click();
		await look(page, 'menu of a secret');
		await page.getByRole('menuitem', { name: 'Delete', exact: true }).click();
		await look(page, 'deleting');
		await button(page, 'Cancel').click();

		await button(page, 'New secret').click();
		const form = dialog(page, 'New secret');
		await look(page, 'new secret');
		await form.getByLabel('Name').fill('not a name');
		await page.keyboard.press('Tab');
		await button(form, 'Create secret').click();
		await form.getByText('Enter a value, or let one be generated.').waitFor();
		await look(page, 'new secret, refused');
		await form.getByRole('radio', { name: 'Generate one' }).click();
		await form.getByLabel('Characters').click();
		await page.getByRole('option', { name: 'Digits', exact: true }).waitFor();
		await look(page, 'new secret, list of characters');
		await page.getByRole('option', { name: 'Digits', exact: true }).click();
		await choose(form, 'Expires', 'At a date and time…');
		await look(page, 'new secret, with a date');
		await form.getByLabel('Name').fill('EXPIRED');
		await form.getByLabel('Date and time').fill('2099-01-01T00:00');
		await button(form, 'Create secret').click();
		await form.getByRole('alert').waitFor();
		await traffic.expect(/409/);
		await look(page, 'new secret, taken');
		await close(page);

		for (const item of ['New version', 'Change expiry', 'Versions']) {
			await more(page, 'STRIPE_SECRET_KEY', item);
			await dialog(page, /STRIPE_SECRET_KEY/).waitFor();
			if (item === 'Versions') {
				await button(page, 'Reveal version 1').click();
				await shownValue(page, 'STRIPE_SECRET_KEY, version 1').waitFor();
				await look(page, 'versions');
				await button(page, 'Roll back to version 1').click();
				await dialog(page, 'Roll back to version 1?').waitFor();
				await look(page, 'rolling back');
				await button(page, 'Cancel').click();
				await dialog(page, 'Roll back to version 1?').waitFor({ state: 'detached' });
			} else await look(page, item);
			await close(page);
			await dialog(page, /STRIPE_SECRET_KEY/).waitFor({ state: 'detached' });
		}
		await more(page, 'DELETED', 'Undelete');
		await message(page, 'DELETED is back.').waitFor();
		await look(page, 'message');
		await open(page, `${SECRETS}?search=nothing+like+it`);
		await page.getByText('Nothing found').waitFor();
		await look(page, 'nothing found');
		await open(page, secretsOf(NEWSLETTER));
		await page.getByText('No secrets yet').waitFor();
		await look(page, 'empty project');
	});

	test('the audit log', async (t) => {
		const { page } = await enter(t, browser, stack, ALICE, `/projects/${SHOP}/audit`, { viewport });
		await button(page, /^Details of/).first().click();
		if (isPhone) await button(page, /^Filters/).click();
		await page.getByRole('search', { name: 'Audit log' }).waitFor();
		await look(page, 'audit log');
		await open(page, `/projects/${SHOP}/audit?name=NOTHING`);
		await page.getByText('No such records').waitFor();
		await look(page, 'no such records');
	});

	test("an operator's pages", async (t) => {
		await stack.sql('ALTER SYSTEM SET meshhook_secrets.rewrap_batch_size = 1');
		await stack.sql('ALTER SYSTEM SET meshhook_secrets.rewrap_pause = 4000');
		await stack.sql('SELECT pg_reload_conf()');
		const { page } = await enter(t, browser, stack, OPERATOR, '/keys', { viewport });
		const findings = page.getByRole('region', { name: 'Doctor' }).getByRole('listitem');
		await findings.first().click();
		await look(page, 'keys');
		await button(page, 'Rotate').click();
		await dialog(page, 'Rotate the KEK?').waitFor();
		await look(page, 'rotating?');
		await button(dialog(page, 'Rotate the KEK?'), 'Rotate').click();
		await page.getByRole('progressbar').waitFor();
		await look(page, 'rotating');
		await stack.sql('ALTER SYSTEM RESET ALL');
		await stack.sql("ALTER SYSTEM SET meshhook_secrets.rewrap_pause = 0");
		await stack.sql('SELECT pg_reload_conf()');
		await page.getByRole('progressbar').waitFor({ state: 'detached', timeout: 30_000 });
		await open(page, '/audit');
		await button(page, 'Verify now').click();
		await page.getByRole('heading', { name: 'The log is whole' }).waitFor();
		await look(page, 'audit log, verified');
	});

	test('while sealed', async (t) => {
		t.after(() => stack.sql('SELECT meshhook_secrets.unseal()'));
		await stack.sql('SELECT meshhook_secrets.seal()');
		const { page } = await enter(t, browser, stack, ALICE, SECRETS, { viewport });
		await page.getByRole('heading', { name: 'The secrets are sealed' }).waitFor();
		await look(page, 'sealed project');
		const operator = await enter(t, browser, stack, OPERATOR, '/keys', { viewport });
		await operator.page.getByRole('heading', { name: /^Sealed/ }).waitFor();
		await operator.page.getByRole('region', { name: 'Doctor' }).getByRole('listitem').first().waitFor();
		await look(operator.page, 'sealed server');
	});
}
