// While the keys are away: pages say so, show what they can, and go on by themselves when the keys are back.

import assert from 'node:assert/strict';
import { existsSync, renameSync } from 'node:fs';
import { test, type TestContext } from 'node:test';
import { button, dialog, enter, message, reveal, secretRow, SECRETS, shownValue, signIn, visit } from './app.ts';
import { openBrowser } from './browser.ts';
import { ALICE, OPERATOR, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();

const rootKey = `${stack.home}/server/root.key`;
const reload = () => stack.sql('SELECT pg_reload_conf()');
const ways = {
	'by hand': { seal: () => stack.sql('SELECT meshhook_secrets.seal()'), unseal: () => stack.sql('SELECT meshhook_secrets.unseal()') },
	'for want of the root key': {
		seal: () => (renameSync(rootKey, `${rootKey}.away`), reload()),
		unseal: () => (existsSync(rootKey) || renameSync(`${rootKey}.away`, rootKey), reload()),
	},
};

for (const [how, { seal, unseal }] of Object.entries(ways)) {
	test(`a project's page while the server is sealed ${how}`, async (t: TestContext) => {
		t.after(unseal);
		const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
		await secretRow(page, 'SMTP_PASSWORD').waitFor();
		await reveal(page, 'SMTP_PASSWORD');
		const loaded = await page.evaluate(() => performance.timeOrigin);

		await seal();
		// The page does not know yet.
		await button(page, 'Reveal STRIPE_SECRET_KEY').click();
		await page.getByRole('heading', { name: 'The secrets are sealed' }).waitFor();
		await traffic.expect(/503/);
		await page.getByText('Cause:').waitFor();
		await page.getByText('For an operator:').waitFor();
		assert.equal(await shownValue(page, 'STRIPE_SECRET_KEY').count(), 0);
		assert.equal(await shownValue(page, 'SMTP_PASSWORD').count(), 0);
		await secretRow(page, 'SMTP_PASSWORD').getByText('Order confirmations').waitFor();
		for (const name of ['New secret', 'Reveal SMTP_PASSWORD: The secrets are sealed.', 'Copy SMTP_PASSWORD without showing it: The secrets are sealed.']) {
			assert.equal(await button(page, name).getAttribute('aria-disabled'), 'true', name);
		}
		await button(page, 'More for SMTP_PASSWORD').click();
		assert.ok(await page.getByRole('menuitem', { name: 'New version' }).isDisabled());
		await page.getByRole('menuitem', { name: 'Versions' }).click();
		await dialog(page, 'Versions of SMTP_PASSWORD').getByText('v1', { exact: true }).waitFor();
		await button(dialog(page, 'Versions of SMTP_PASSWORD'), 'Close').click();

		await unseal();
		await message(page, 'The secrets are unsealed. Everything works again.').waitFor();
		await page.getByRole('heading', { name: 'The secrets are sealed' }).waitFor({ state: 'detached' });
		assert.ok(await reveal(page, 'SMTP_PASSWORD'));
		assert.equal(await page.evaluate(() => performance.timeOrigin), loaded, 'the page was loaded anew');
	});

	test(`what is being written when the server is sealed ${how} is not lost`, async (t: TestContext) => {
		t.after(unseal);
		const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
		const name = `KEPT_${how.length}`;
		await button(page, 'New secret').click();
		const form = dialog(page, 'New secret');
		await form.getByLabel('Name').fill(name);
		await form.getByLabel('Value', { exact: true }).fill('typed before');
		await seal();
		await button(form, 'Create secret').click();
		await form.getByRole('alert').waitFor();
		await traffic.expect(/503/);
		await unseal();
		await message(page, 'The secrets are unsealed. Everything works again.').waitFor();
		await button(form, 'Create secret').click();
		await message(page, `${name} is stored.`).waitFor();
		assert.equal(await reveal(page, name), 'typed before');
	});

	test(`the operator's page while the server is sealed ${how}`, async (t: TestContext) => {
		t.after(unseal);
		const { page } = await visit(t, browser, stack);
		await page.clock.install();
		await signIn(page, OPERATOR, '/keys');
		await page.getByRole('heading', { name: 'Healthy' }).waitFor();
		await page.getByRole('region', { name: 'Doctor' }).getByRole('listitem').first().waitFor();
		const loaded = await page.evaluate(() => performance.timeOrigin);
		await seal();
		// While all is well it looks now and then only.
		await page.clock.fastForward('01:00');
		await page.getByRole('heading', { name: /^Sealed/ }).waitFor();
		await page.getByText('What to do:').waitFor();
		const [remedy] = (await stack.sql('SELECT remedy FROM meshhook_secrets.seal_status()')).split('\n');
		await page.getByText(remedy).first().waitFor();
		assert.equal(await button(page, 'Rotate').getAttribute('aria-disabled'), 'true');
		await unseal();
		await page.getByRole('heading', { name: 'Healthy' }).waitFor();
		assert.equal(await button(page, 'Rotate').getAttribute('aria-disabled'), null);
		assert.equal(await page.evaluate(() => performance.timeOrigin), loaded, 'the page was loaded anew');
	});
}

test('a page that is opened while the server is sealed', async (t) => {
	await ways['by hand'].seal();
	t.after(ways['by hand'].unseal);
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	await page.getByRole('heading', { name: 'The secrets are sealed' }).waitFor();
	await secretRow(page, 'STRIPE_SECRET_KEY').waitFor();
	await page.getByRole('link', { name: 'Audit log' }).click();
	await page.getByRole('row').filter({ hasText: 'secret_list' }).first().waitFor();
});
