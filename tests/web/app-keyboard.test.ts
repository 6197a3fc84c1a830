// With nothing but the keyboard: everything can be done, and the focus is where one goes on.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Locator, Page } from 'playwright-core';
import { button, dialog, enter, message, secretRow, SECRETS, shownValue, visit } from './app.ts';
import { openBrowser } from './browser.ts';
import { ALICE, SHOP, signedIn, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();
const alice = await signedIn(stack, ALICE);

const hasFocus = (target: Locator) => target.evaluate((element) => element === document.activeElement);

/** Presses Tab until the focus is there; each stop on the way must show that it has the focus. */
async function tabTo(page: Page, target: Locator, key = 'Tab'): Promise<void> {
	for (let stops = 0; stops < 80; stops++) {
		await page.keyboard.press(key);
		const [name, seen] = await page.evaluate(() => {
			const { outlineStyle, boxShadow } = getComputedStyle(document.activeElement!);
			return [document.activeElement!.outerHTML, document.activeElement === document.body || outlineStyle !== 'none' || boxShadow !== 'none'];
		});
		assert.ok(seen, `no focus is seen at ${name}`);
		if ((await target.count()) > 0 && (await hasFocus(target))) return;
	}
	assert.fail(`Tab does not lead to ${target}`);
}

/** The focus is there, now or soon. */
async function focusIs(target: Locator, when: string): Promise<void> {
	await target.waitFor();
	const handle = await target.elementHandle();
	await target.page().waitForFunction((element) => element === document.activeElement, handle).catch(async () => {
		const at = await target.page().evaluate(() => document.activeElement?.outerHTML.slice(0, 200));
		assert.fail(`${when}: the focus is at ${at}`);
	});
}

test('a secret is created, revealed, copied and deleted', async (t) => {
	const { page } = await visit(t, browser, stack, { permissions: ['clipboard-read', 'clipboard-write'] });
	await page.goto(SECRETS);
	await tabTo(page, page.getByLabel('Email'));
	await page.keyboard.type(ALICE);
	await page.keyboard.press('Tab');
	await page.keyboard.type('demo');
	await page.keyboard.press('Enter');
	await secretRow(page, 'SMTP_PASSWORD').waitFor();

	await tabTo(page, page.getByRole('link', { name: 'Skip to the content' }));
	await page.keyboard.press('Enter');
	await tabTo(page, button(page, 'New secret'));
	await page.keyboard.press('Enter');
	const form = dialog(page, 'New secret');
	await focusIs(form.getByLabel('Name'), 'a dialog opens');
	await page.keyboard.type('BY_KEYS');
	await tabTo(page, form.getByLabel('Value', { exact: true }));
	await page.keyboard.type('typed');
	await tabTo(page, button(form, 'Create secret'));
	await page.keyboard.press('Enter');
	await form.waitFor({ state: 'detached' });
	await focusIs(button(page, 'New secret'), 'a secret was created');

	await tabTo(page, button(page, 'Reveal BY_KEYS'));
	await page.keyboard.press('Space');
	await shownValue(page, 'BY_KEYS').waitFor();
	assert.equal(await shownValue(page, 'BY_KEYS').inputValue(), 'typed');
	await focusIs(button(page, 'Hide BY_KEYS'), 'a value was revealed');
	await page.keyboard.press('Enter');
	await shownValue(page, 'BY_KEYS').waitFor({ state: 'detached' });
	await focusIs(button(page, 'Reveal BY_KEYS'), 'a value was hidden');

	await tabTo(page, button(page, 'Copy BY_KEYS without showing it'));
	await page.keyboard.press('Enter');
	await message(page, 'Copied. Recorded in the audit log.').waitFor();
	assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'typed');

	await tabTo(page, button(page, 'More for BY_KEYS'));
	await page.keyboard.press('Enter');
	await page.getByRole('menuitem', { name: 'New version' }).waitFor();
	await page.keyboard.press('End');
	await focusIs(page.getByRole('menuitem', { name: 'Delete' }), 'End in a menu');
	await page.keyboard.press('Enter');
	const question = dialog(page, 'Delete BY_KEYS?');
	await question.waitFor();
	const confirm = question.getByLabel('Type BY_KEYS to confirm');
	if (!(await hasFocus(confirm))) await tabTo(page, confirm);
	await page.keyboard.type('BY_KEYS');
	await page.keyboard.press('Enter');
	await message(page, 'BY_KEYS is deleted.').waitFor();
	await secretRow(page, 'BY_KEYS').waitFor({ state: 'detached' });
	await page.waitForFunction(() => document.activeElement !== document.body);

	await tabTo(page, button(page.getByRole('region', { name: 'Messages' }), 'Undo'));
	await page.keyboard.press('Enter');
	await secretRow(page, 'BY_KEYS').waitFor();
	await page.waitForFunction(() => document.activeElement !== document.body);
});

test('the focus stays in a dialog, and returns to where it was', async (t) => {
	const { error } = await alice.rpc('secret_put', { project_id: SHOP, name: 'ONE', value: 'x' });
	assert.equal(error, null);
	const { page } = await enter(t, browser, stack, ALICE, SECRETS);
	for (const [item, title] of [['New version', /^New version/], ['Versions', /^Versions/], ['Change expiry', /^Expiry/], ['Delete', /^Delete ONE/]] as const) {
		await button(page, 'More for ONE').focus();
		await page.keyboard.press('Enter');
		const entry = page.getByRole('menuitem', { name: item, exact: true });
		await entry.waitFor();
		while (!(await hasFocus(entry))) await page.keyboard.press('ArrowDown');
		await page.keyboard.press('Enter');
		const opened = dialog(page, title);
		await opened.waitFor();
		for (let stops = 0; stops < 15; stops++) {
			await page.keyboard.press('Tab');
			const outside = await opened.evaluate((element) =>
				// On the way around, the focus may pass the browser's own controls.
				element.contains(document.activeElement) || document.activeElement === document.body ? null : document.activeElement?.outerHTML);
			assert.equal(outside, null, `${item}: Tab number ${stops + 1} leaves the dialog`);
		}
		// Elsewhere Escape may close a tooltip first.
		await opened.getByRole('button', { name: /^(Close|Cancel)$/ }).first().focus();
		await page.keyboard.press('Escape');
		await opened.waitFor({ state: 'detached' });
		await focusIs(button(page, 'More for ONE'), `${item} was closed`);
	}
});

test('on a phone the menu opens, closes, and gives the focus back', async (t) => {
	const { page } = await enter(t, browser, stack, ALICE, SECRETS, { viewport: { width: 390, height: 844 } });
	await tabTo(page, button(page, 'Menu'));
	await page.keyboard.press('Enter');
	await page.getByRole('link', { name: 'Audit log' }).waitFor();
	await page.keyboard.press('Escape');
	await focusIs(button(page, 'Menu'), 'the menu was closed');
	await page.keyboard.press('Enter');
	await tabTo(page, page.getByRole('link', { name: 'Audit log' }));
	await page.keyboard.press('Enter');
	await page.getByRole('heading', { name: 'Audit log' }).waitFor();
	await page.getByRole('link', { name: 'Audit log' }).waitFor({ state: 'detached' });
});

test('nothing moves for who wants less motion', async (t) => {
	const longest = (page: Page) => page.evaluate(() => {
		const ends = document.getAnimations().map((animation) => Number(animation.effect!.getComputedTiming().endTime));
		return Math.max(0, ...ends);
	});
	const { page } = await enter(t, browser, stack, ALICE, SECRETS, { reducedMotion: 'reduce' });
	await page.evaluate(() => {
		// What begins to move is noted, for it may be over when one looks.
		const seen = ((globalThis as unknown as { moved: number[] }).moved = []) as number[];
		for (const event of ['animationstart', 'transitionrun'] as const) {
			document.addEventListener(event, () => {
				for (const animation of document.getAnimations()) seen.push(Number(animation.effect!.getComputedTiming().endTime));
			});
		}
	});
	await button(page, 'New secret').click();
	await dialog(page, 'New secret').waitFor();
	await page.keyboard.press('Escape');
	await dialog(page, 'New secret').waitFor({ state: 'detached' });
	await button(page, 'Reveal SMTP_PASSWORD').click();
	await shownValue(page, 'SMTP_PASSWORD').waitFor();
	const moved = await page.evaluate(() => (globalThis as unknown as { moved: number[] }).moved);
	assert.ok(Math.max(0, ...moved, await longest(page)) < 1, `${moved}`);

	await page.emulateMedia({ reducedMotion: 'no-preference' });
	await button(page, 'New secret').click();
	assert.ok((await longest(page)) > 1, 'this test sees what moves');
});
