// Chromium, and what a test wants to know of a page that no person sees.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after } from 'node:test';
import { chromium, type Browser, type BrowserContext, type BrowserContextOptions, type Page } from 'playwright-core';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/** Starts Chromium; it ends with the test file. */
export async function openBrowser(): Promise<Browser> {
	const browser = await chromium.launch({
		executablePath: process.env.CHROMIUM,
		// The sandbox does not start as root, nor in most containers. No page of others is opened here.
		args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
			'--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'],
	});
	after(() => browser.close());
	return browser;
}

/** Everything that the server has sent to a person's browser, to be searched for a value. */
export class Traffic {
	#bodies: { url: string; method: string; text: string }[] = [];
	#pending: Promise<unknown>[] = [];
	/** What went wrong on the way: page errors, console errors, answers with status 500 and above. */
	readonly faults: string[] = [];

	constructor(context: BrowserContext) {
		context.on('response', (response) => {
			const request = response.request();
			const headers = JSON.stringify(response.headers());
			this.#pending.push(response.text().catch(() => '').then((text) =>
				this.#bodies.push({ url: response.url(), method: request.method(), text: response.url() + headers + text })));
			if (response.status() >= 500) this.faults.push(`${response.status()} ${request.method()} ${response.url()}`);
		});
		context.on('weberror', (error) => this.faults.push(String(error.error())));
		context.on('console', (message) => {
			if (message.type() === 'error') this.faults.push(`${message.text()} ${message.location().url}`);
		});
	}

	/** Takes the faults that a test has provoked off the list; there must be some, soon. */
	async expect(provoked: RegExp): Promise<void> {
		const patience = Date.now() + 5000;
		while (!this.faults.some((fault) => provoked.test(fault)) && Date.now() < patience) {
			await new Promise((soon) => setTimeout(soon, 20));
		}
		const others = this.faults.filter((fault) => !provoked.test(fault));
		assert.ok(others.length < this.faults.length, `no fault is like ${provoked}`);
		this.faults.splice(0, Infinity, ...others);
	}

	/** The requests whose answers, or URLs, hold this text, as `METHOD /path`. */
	async holding(text: string): Promise<string[]> {
		await Promise.all(this.#pending);
		return this.#bodies.filter((body) => body.text.includes(text)).map((body) => `${body.method} ${new URL(body.url).pathname}`);
	}
}

/** A person's browser window: a session of its own, its traffic watched. */
export async function openWindow(browser: Browser, options: BrowserContextOptions = {}): Promise<{ page: Page; traffic: Traffic }> {
	const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
	context.setDefaultTimeout(10_000);
	const traffic = new Traffic(context);
	return { page: await context.newPage(), traffic };
}

/** All that the page has stored where scripts can read it, and its whole document as it is now. */
export async function remembered(page: Page): Promise<string> {
	return page.evaluate(async () => {
		const databases = await indexedDB.databases();
		const caches_ = await caches.keys();
		const inputs = [...document.querySelectorAll<HTMLInputElement | HTMLTextAreaElement>('input, textarea')].map((field) => field.value);
		return JSON.stringify([{ ...localStorage }, { ...sessionStorage }, databases, caches_, document.cookie, inputs, history.state, location.href]) +
			document.documentElement.outerHTML;
	});
}

/** axe-core finds nothing wrong (WCAG 2.2 A and AA, and its best practices). */
export async function assertAccessible(page: Page, where: string): Promise<void> {
	// Colours in the middle of a transition are nobody's. Some animations never end.
	await page.evaluate(() => document.getAnimations().forEach((animation) => {
		if (Number.isFinite(animation.effect?.getComputedTiming().endTime)) animation.finish();
	}));
	// Not as a script element: the page's Content-Security-Policy would rightly refuse it.
	await page.evaluate(axe);
	const violations = await page.evaluate(async () => {
		const { violations } = await (globalThis as unknown as { axe: { run(): Promise<{ violations: { id: string; nodes: { html: string }[] }[] }> } }).axe.run();
		return violations.map((violation) => `${violation.id}: ${violation.nodes.map((node) => node.html).join(' | ')}`);
	});
	assert.deepEqual(violations, [], where);
}

/** Nothing makes the page scroll sideways. */
export async function assertFits(page: Page, where: string): Promise<void> {
	const [needed, there] = await page.evaluate(() => [document.scrollingElement!.scrollWidth, innerWidth]);
	assert.ok(needed <= there, `${where}: ${needed} px wide in a window of ${there} px`);
}
