import { z } from 'zod';
import type { RotateKek, SearchAudit } from '$lib/api-types';
import { digits, strict, time, uuid } from './strict';

export const rotateKek = strict({ reason: z.string().optional() }) satisfies z.ZodType<RotateKek>;

export const searchAudit = strict({
	project_id: uuid.optional(),
	since: time.optional(),
	until: time.optional(),
	action: z.string().optional(),
	outcome: z.enum(['ok', 'denied', 'not_found', 'error']).optional(),
	actor: z.string().optional(),
	name: z.string().optional(),
	after: digits.optional(),
	page_size: digits.default(100),
	format: z.literal('csv').optional(),
}) satisfies z.ZodType<SearchAudit>;
