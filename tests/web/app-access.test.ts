// Who gets in, and that nobody sees, or learns the existence of, what is somebody else's.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import type { Page } from 'playwright-core';
import { BOBS_ID, button, enter, SECRETS, secretRow, secretsOf, signIn, visit } from './app.ts';
import { openBrowser } from './browser.ts';
import { ALICE, BLOG, BOB, NEWSLETTER, OPERATOR, SHOP, signedIn, startStack } from './support.ts';

const stack = await startStack({ port: 0 });
const browser = await openBrowser();
const NOWHERE = '00000000-0000-4000-8000-000000000000';

/** Every request about a secret of a project that the API knows. */
const requests = (project: string, secret: string): [method: string, path: string, body?: object][] => {
	const all = `/api/projects/${project}/secrets`;
	const one = `${all}/${secret}`;
	return [
		['GET', all], ['GET', `${all}?include_deleted=true`], ['POST', all, { name: 'PLANTED', value: 'x' }],
		['POST', all, { name: 'STRIPE_SECRET_KEY', value: 'x' }], ['GET', `/api/projects/${project}/due`],
		['PUT', one, { value: 'x' }], ['PATCH', one, { expires_at: '2000-01-01T00:00:00Z' }], ['DELETE', one],
		['DELETE', `${one}?purge=true&confirm=STRIPE_SECRET_KEY`], ['POST', `${one}/reveal`, {}],
		['POST', `${one}/reveal`, { purpose: 'copy', version: 1 }], ['GET', `${one}/versions`], ['POST', `${one}/rollback`, { version: 1 }],
		['POST', `${one}/undelete`],
	];
};

/** What this page is answered, as `status body`. */
const call = (page: Page, [method, path, body]: [string, string, object?]) =>
	page.evaluate(async ({ method, path, body }) => {
		const response = await fetch(path, {
			method, body: body && JSON.stringify(body), headers: body ? { 'content-type': 'application/json' } : {},
		});
		return `${response.status} ${await response.text()}`;
	}, { method, path, body });

const alices = await stack.sql(`SELECT id FROM meshhook_secrets.project_secrets WHERE name = 'STRIPE_SECRET_KEY'`);

test('who is not signed in is sent to sign in, and then where they wanted to go', async (t) => {
	const { page, traffic } = await visit(t, browser, stack);
	for (const path of ['/', SECRETS, `/projects/${SHOP}/audit`, '/keys', '/audit', secretsOf(NOWHERE)]) {
		await page.goto(path);
		await page.getByRole('heading', { name: 'Sign in' }).waitFor();
		assert.equal(new URL(page.url()).searchParams.get('next'), path);
	}
	for (const request of [...requests(SHOP, alices), ['GET', '/api/v1/kek/status'], ['GET', '/api/audit-logs']] as const) {
		assert.match(await call(page, request as [string, string]), /^401 \{"error":\{"code":"unauthenticated"/, request.join(' '));
	}
	await traffic.expect(/401/);

	await page.goto(`${SECRETS}?search=payments`);
	await page.getByLabel('Email').fill(ALICE);
	await page.getByLabel('Password').fill('a wrong one');
	await button(page, 'Sign in').click();
	await page.getByText('The email or the password is wrong.').waitFor();
	assert.equal(await page.getByLabel('Email').inputValue(), ALICE);
	await page.getByLabel('Password').fill('demo');
	await button(page, 'Sign in').click();
	await secretRow(page, 'STRIPE_SECRET_KEY').waitFor();
	assert.equal(await secretRow(page, 'SMTP_PASSWORD').count(), 0);
	assert.equal(page.url(), `${stack.url}${SECRETS}?search=payments`);
});

test('nobody is sent to another site after signing in', async (t) => {
	const { page } = await visit(t, browser, stack);
	for (const next of ['https://elsewhere.example/', '//elsewhere.example', '/\\elsewhere.example']) {
		await page.goto(`/login?next=${encodeURIComponent(next)}`);
		await button(page, /^Sign in as Bob/).click();
		await page.getByRole('heading', { name: 'Secrets' }).waitFor();
		assert.equal(page.url(), `${stack.url}${secretsOf(BLOG)}`);
		await page.context().clearCookies();
	}
});

test('the demo signs in with a button; signed out is signed out', async (t) => {
	const { page, traffic } = await visit(t, browser, stack);
	await page.goto('/login');
	await button(page, /^Sign in as Alice/).click();
	await page.getByRole('heading', { name: 'Projects' }).waitFor();
	await page.getByRole('main').getByRole('link', { name: "Alice's shop" }).click();
	await secretRow(page, 'SMTP_PASSWORD').waitFor();
	const cookies = await page.context().cookies();

	await button(page, /your account/).click();
	await page.getByRole('menuitem', { name: 'Sign out' }).click();
	await page.getByRole('heading', { name: 'Sign in' }).waitFor();
	assert.ok(cookies.length > 0 && cookies.every(({ httpOnly, sameSite }) => httpOnly && sameSite === 'Lax'));
	assert.deepEqual(await page.context().cookies(), []);
	await page.goBack();
	await page.getByRole('heading', { name: 'Sign in' }).waitFor();
	assert.match(await call(page, ['GET', `/api/projects/${SHOP}/secrets`]), /^401/);
	await traffic.expect(/401/);
});

test('a session that ends behind the page leads back to signing in, and from there to the page', async (t) => {
	const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
	await page.context().clearCookies();
	await button(page, 'Reveal SMTP_PASSWORD').click();
	await page.getByRole('heading', { name: 'Sign in' }).waitFor();
	await traffic.expect(/401/);
	await button(page, /^Sign in as Alice/).click();
	await secretRow(page, 'SMTP_PASSWORD').waitFor();
	assert.equal(new URL(page.url()).pathname, SECRETS);
});

test("Bob sees nothing of Alice's in the pages", async (t) => {
	const { page, traffic } = await enter(t, browser, stack, BOB, '/?all');
	const projects = page.getByRole('main').getByRole('listitem');
	assert.deepEqual((await projects.allInnerTexts()).map((text) => text.split('\n').includes("Bob's blog")), [true]);
	await page.goto(secretsOf(BLOG));
	await secretRow(page, 'GITHUB_TOKEN').waitFor();
	assert.equal(await page.getByRole('rowheader').count(), 1);
	await page.goto(`/projects/${BLOG}/audit`);
	await page.getByText('secret_generate').first().waitFor();
	assert.equal(await page.getByText('STRIPE_SECRET_KEY').count(), 0);

	const texts = new Map<string, string>();
	for (const project of [SHOP, NEWSLETTER, NOWHERE]) {
		for (const section of ['secrets', 'audit']) {
			const response = await page.goto(`/projects/${project}/${section}`);
			assert.equal(response?.status(), 403);
			await page.getByRole('heading', { name: 'You have no access to this' }).waitFor();
			const text = (await page.getByRole('main').innerText()).replace(/Request.*/s, '');
			assert.equal(text, texts.get(section) ?? text, `${project} ${section}`);
			texts.set(section, text);
		}
	}
	for (const path of ['/keys', '/audit']) {
		await page.goto(path);
		await page.getByRole('heading', { name: 'You have no access to this' }).waitFor();
	}
	await traffic.expect(/403/);
	assert.deepEqual(await traffic.holding('STRIPE_SECRET_KEY'), []);
	assert.deepEqual(await traffic.holding("Alice's shop"), []);
});

test("Bob learns nothing of Alice's from the API, and changes nothing", async (t) => {
	const { page, traffic } = await enter(t, browser, stack, BOB, secretsOf(BLOG));
	const before = await stack.sql('SELECT * FROM meshhook_secrets.project_secrets ORDER BY id');

	// A project that is there, or not, is the same.
	const [hers, nobodys] = [requests(SHOP, alices), requests(NOWHERE, alices)];
	const logs = (project: string): [string, string] => ['GET', `/api/audit-logs?project_id=${project}`];
	for (const [at, request] of [...hers, logs(SHOP)].entries()) {
		const answer = await call(page, request);
		assert.equal(answer.replaceAll(SHOP, NOWHERE), await call(page, [...nobodys, logs(NOWHERE)][at]), request.join(' '));
		assert.match(answer, request[1].startsWith('/api/audit') ? /^(403|200 \{"records":\[\],)/ : /^(403|404) \{"error"/, request.join(' '));
	}
	// A secret that is there, or not, is the same through a project of his own.
	const random = randomUUID();
	for (const [at, request] of requests(BLOG, alices).entries()) {
		if (!request[1].includes(alices)) continue;
		const answer = await call(page, request);
		assert.match(answer, /^404 \{"error":\{"code":"PT404"/, request.join(' '));
		assert.equal(answer.replaceAll(alices, random), await call(page, requests(BLOG, random)[at]));
	}
	for (const request of [['POST', '/api/v1/kek/rotate', {}], ['GET', '/api/v1/kek/status'], ['GET', '/api/v1/doctor'], ['GET', '/api/audit-logs/verify']] as const) {
		assert.match(await call(page, request as unknown as [string, string]), /^403 /, request.join(' '));
	}
	await traffic.expect(/40[34]/);

	assert.equal(await stack.sql('SELECT * FROM meshhook_secrets.project_secrets ORDER BY id'), before);
	const denied = await stack.sql(`SELECT DISTINCT action FROM meshhook_secrets.audit_search('${SHOP}', outcome => 'denied', page_size => 1000)
		WHERE claimed_sub = '${BOBS_ID}' ORDER BY action`);
	assert.match(denied, /secret_list/);
	assert.match(denied, /secret_put/);
});

test('signing in as somebody else shows nothing of the one before', async (t) => {
	const { page, traffic } = await enter(t, browser, stack, ALICE, SECRETS);
	await secretRow(page, 'STRIPE_SECRET_KEY').waitFor();
	await page.context().clearCookies();
	await signIn(page, BOB, SECRETS);
	await page.getByRole('heading', { name: 'You have no access to this' }).waitFor();
	await traffic.expect(/403/);
	await page.goto('/');
	await secretRow(page, 'GITHUB_TOKEN').waitFor();
	assert.equal(await page.getByText('STRIPE_SECRET_KEY').count(), 0);
});

test('an operator reaches no secret', async (t) => {
	const { page, traffic } = await enter(t, browser, stack, OPERATOR);
	await page.getByRole('heading', { name: 'Keys', exact: true }).waitFor();
	assert.deepEqual(await page.getByRole('navigation').getByRole('link').allInnerTexts(), ['Keys', 'Audit log']);
	for (const path of [SECRETS, secretsOf(BLOG), `/projects/${SHOP}/audit`]) {
		assert.equal((await page.goto(path))?.status(), 403);
		await page.getByRole('heading', { name: 'You have no access to this' }).waitFor();
	}
	for (const request of requests(SHOP, alices)) assert.match(await call(page, request), /^(403|404) \{"error"/, request.join(' '));
	await traffic.expect(/40[34]/);
	const value = (await (await signedIn(stack, ALICE)).rpc('secret_get', { project_id: SHOP, name: 'STRIPE_SECRET_KEY' })).data;
	assert.ok(value);
	assert.deepEqual(await traffic.holding(value), []);
});
