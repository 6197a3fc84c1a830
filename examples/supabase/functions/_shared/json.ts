// Looking at JSON that somebody sent.

import { badArgument } from './errors.ts';

export type Json = { [key: string]: unknown };

export function object(value: unknown, what: string): Json {
	if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Json;
	throw badArgument(`${what} must be a JSON object`);
}

/** Refuses what would be ignored: a misspelt argument is not one that was left out. */
export function onlyKeys(value: Json, keys: string[], what: string): void {
	if (Object.keys(value).some((key) => !keys.includes(key))) throw badArgument(`${what} can have ${keys.join(', ')}`);
}
