// What several endpoints of secrets share. The API knows secrets by id, the database's functions by name.

import type { z } from 'zod';
import type { SecretVersionInfo, Uuid } from '$lib/api-types';
import type { Secrets } from './endpoint';
import { ask, noSuchSecret } from './errors';
import type { newSecret } from './schemas/secrets';

/** The arguments that say which secret, if row-level security lets the caller see it. */
export async function secretOf(secrets: Secrets, { projectId, secretId }: { projectId: Uuid; secretId: Uuid }) {
	const found = await ask(
		secrets.from('project_secrets').select('name').eq('project_id', projectId).eq('id', secretId).maybeSingle(),
	);
	if (found) return { project_id: projectId, name: found.name };
	// For those who are no members of the project, the database refuses this in its own words, and records it.
	await ask(secrets.rpc('secret_list', { project_id: projectId, page_size: 1 }));
	throw noSuchSecret();
}

type OfSecret = { project_id: Uuid; name: string; cas?: number; previous_valid_for?: string };

/** Stores a value that was given, or one that the database makes up. */
export function store(
	secrets: Secrets,
	secret: OfSecret,
	{ value, generate, description, expires_at, metadata }: Omit<z.infer<typeof newSecret>, 'name'>,
): Promise<SecretVersionInfo> {
	const args = { ...secret, description, expires_at, metadata };
	return ask(
		value === undefined
			? secrets.rpc('secret_generate', { ...args, ...generate })
			: secrets.rpc('secret_put', { ...args, value }),
	);
}
