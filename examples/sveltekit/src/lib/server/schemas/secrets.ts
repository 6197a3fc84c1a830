import { z } from 'zod';
import type { Expire, Json, ListDue, ListSecrets, RevealSecret, Rollback } from '$lib/api-types';
import { digits, int, strict, time } from './strict';

const written = {
	value: z.string().optional(),
	generate: strict({
		length: int.optional(),
		charset: z.enum(['base64url', 'hex', 'alphanumeric', 'digits', 'printable']).optional(),
	}).optional(),
	description: z.string().optional(),
	expires_at: time.optional(),
	// Any JSON: the body was parsed as such.
	metadata: z.custom<Json>().optional(),
};
const oneOfBoth = ({ value, generate }: { value?: string; generate?: object }) =>
	(value === undefined) !== (generate === undefined);
const ONE_OF_BOTH = 'Give either value or generate';

export const newSecret = strict({ name: z.string(), ...written }).refine(oneOfBoth, ONE_OF_BOTH);
export const newVersion = strict({
	...written,
	previous_valid_for: z.string().max(100).optional(),
	cas: int.optional(),
}).refine(oneOfBoth, ONE_OF_BOTH);

export const listSecrets = strict({
	search: z.string().optional(),
	include_deleted: z.enum(['true', 'false']).transform((text) => text === 'true').optional(),
	after: z.string().optional(),
	page_size: digits.default(100),
}) satisfies z.ZodType<ListSecrets>;

export const expire = strict({ expires_at: time.or(z.literal('now')).nullable() }) satisfies z.ZodType<Expire>;
export const deletion = strict({ purge: z.literal('true').optional(), confirm: z.string().optional() }).refine(
	({ purge, confirm }) => (purge === undefined) === (confirm === undefined),
	'To purge, give purge=true and confirm=NAME',
);
export const reveal = strict({
	version: int.optional(),
	purpose: z.enum(['reveal', 'copy']).default('reveal'),
}) satisfies z.ZodType<RevealSecret>;
export const rollback = strict({ version: int, cas: int.optional() }) satisfies z.ZodType<Rollback>;
export const listDue = strict({ within: z.string().max(100).optional() }) satisfies z.ZodType<ListDue>;
