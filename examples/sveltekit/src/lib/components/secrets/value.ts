// What the forms of secrets hold while one fills them in, and what of it is sent.

import type { Charset, ValueOrGenerate } from '$lib/api-types';
import { fromLocalInput, LATEST_INPUT } from '$lib/format';

export type ValueDraft = { mode: 'value' | 'generate'; value: string; length: string; charset: Charset };
export const emptyValue = (): ValueDraft => ({ mode: 'value', value: '', length: '32', charset: 'base64url' });

export function valueProblem({ mode, value, length }: ValueDraft): string | null {
	if (mode === 'value') return value ? null : 'Enter a value, or let one be generated.';
	const characters = Number(length);
	return Number.isInteger(characters) && characters >= 1 && characters <= 4096 ? null : 'From 1 to 4096 characters.';
}

export const valueOf = ({ mode, value, length, charset }: ValueDraft): ValueOrGenerate =>
	mode === 'value' ? { value } : { generate: { length: Number(length), charset } };

/** `days` is a number of days from now; `at` the field of a date. */
export type ExpiryDraft = { choice: 'never' | 'at' | 'now' | `${number}`; at: string };
export const noExpiry = (): ExpiryDraft => ({ choice: 'never', at: '' });

export function expiryProblem({ choice, at }: ExpiryDraft): string | null {
	if (choice !== 'at') return null;
	if (!at) return 'Choose a date and time.';
	if (at > LATEST_INPUT || !fromLocalInput(at)) return 'Choose a year of four digits.';
	return Date.parse(at) > Date.now() ? null : 'Choose a time in the future.';
}

export function expiryOfDraft({ choice, at }: ExpiryDraft): string | undefined {
	if (choice === 'never') return undefined;
	if (choice === 'at') return fromLocalInput(at);
	// By the clock of the database, which decides.
	if (choice === 'now') return 'now';
	return new Date(Date.now() + Number(choice) * 86_400_000).toISOString();
}
