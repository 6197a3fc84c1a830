// People in front of the page: what they do, by what they read and hear.

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { Browser, BrowserContextOptions, Locator, Page } from 'playwright-core';
import type { Stack } from '../../demo/web/stack.ts';
import { openWindow, type Traffic } from './browser.ts';
import { SHOP } from './support.ts';

export const secretsOf = (project: string) => `/projects/${project}/secrets`;
export const SECRETS = secretsOf(SHOP);

export const ALICES_ID = 'a11ce000-0000-4000-8000-000000000001';
export const BOBS_ID = 'b0b00000-0000-4000-8000-000000000002';

/** A browser window that is closed after the test. Nothing may have gone wrong in it then. */
export async function visit(t: TestContext, browser: Browser, stack: Stack, options: BrowserContextOptions = {}): Promise<{ page: Page; traffic: Traffic }> {
	const window = await openWindow(browser, { baseURL: stack.url, ...options });
	t.after(async () => {
		await window.page.context().close();
		assert.deepEqual(window.traffic.faults, []);
	});
	return window;
}

/** Signs in with the form and ends at `path`. */
export async function signIn(page: Page, email: string, path = '/'): Promise<void> {
	await page.goto(`/login?next=${encodeURIComponent(path)}`);
	await page.getByLabel('Email').fill(email);
	await page.getByLabel('Password').fill('demo');
	await page.getByRole('button', { name: 'Sign in', exact: true }).click();
	await page.getByRole('navigation', { name: 'Main' }).or(page.getByRole('button', { name: 'Menu' })).first().waitFor();
}

/** Goes to a path and waits until the page answers to clicks: it is there before its scripts are. */
export async function open(page: Page, path: string): Promise<void> {
	await page.goto(path);
	await page.waitForLoadState('networkidle');
}

/** Signs in with a window of its own. */
export async function enter(t: TestContext, browser: Browser, stack: Stack, email: string, path = '/', options: BrowserContextOptions = {}) {
	const window = await visit(t, browser, stack, options);
	await signIn(window.page, email, path);
	return window;
}

export const button = (within: Page | Locator, name: string | RegExp) => within.getByRole('button', { name, exact: true });
export const dialog = (page: Page, name: string | RegExp) => page.getByRole('dialog', { name }).or(page.getByRole('alertdialog', { name }));
/** What is told at the edge of the page. */
export const message = (page: Page, text: string) => page.getByRole('region', { name: 'Messages' }).getByText(text, { exact: true });
export const secretRow = (page: Page, name: string) =>
	page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: new RegExp(`^${name}\\b`) }) });
/** A text in the row, which has some of them twice, for narrow and for wide windows. */
export const inRow = (page: Page, name: string, text: string | RegExp) => secretRow(page, name).getByText(text).filter({ visible: true });
/** The value of a secret that is shown. */
export const shownValue = (page: Page, name: string) => page.getByRole('textbox', { name: `Value of ${name}`, exact: true });

/** Chooses from the menu of a secret. */
export async function more(page: Page, name: string, item: string): Promise<void> {
	await button(page, `More for ${name}`).click();
	await page.getByRole('menuitem', { name: item, exact: true }).click();
}

/** Chooses from a field that opens a list. */
export async function choose(within: Locator, label: string, option: string): Promise<void> {
	await within.getByLabel(label, { exact: true }).click();
	await within.page().getByRole('option', { name: option, exact: true }).click();
}

/** Reveals with the row's button; the value. */
export async function reveal(page: Page, name: string): Promise<string> {
	await button(page, `Reveal ${name}`).click();
	return shownValue(page, name).inputValue();
}

/** What the audit log has of a secret, oldest first: action, outcome, version, purpose, sub. */
export async function recorded(stack: Stack, name: string): Promise<string[]> {
	const rows = await stack.sql(`SELECT concat_ws(' ', action, outcome, 'v' || version, purpose, claimed_sub)
		FROM meshhook_secrets.audit_search(name => '${name}', page_size => 1000) ORDER BY time, id`);
	return rows.split('\n').filter(Boolean);
}
