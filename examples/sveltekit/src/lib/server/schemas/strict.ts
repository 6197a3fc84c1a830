import { z } from 'zod';

/** An object of these fields and no others. The refusal names ours, not the ones that were given. */
export function strict<Shape extends z.ZodRawShape>(shape: Shape) {
	const known = Object.keys(shape).join(', ') || 'none';
	return z.strictObject(shape, {
		error: ({ code }) => (code === 'unrecognized_keys' ? `Unknown field; known are: ${known}` : undefined),
	});
}

/** A whole number in a query; how large it may be is the database's to say. */
export const digits = z.string().regex(/^\d{1,16}$/, 'Not a number').transform(Number);
export const time = z.iso.datetime({ offset: true });
/** As PostgreSQL takes them, of any version. */
export const uuid = z.guid('Not a UUID');
export const int = z.int32();
export const ofProject = z.object({ projectId: uuid });
export const ofSecret = z.object({ projectId: uuid, secretId: uuid });
