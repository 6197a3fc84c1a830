import type { AuditPage, SearchAudit } from '$lib/api-types';
import type { Secrets } from './endpoint';
import { ask } from './errors';

export async function auditPage(secrets: Secrets, query: Omit<SearchAudit, 'format'>): Promise<AuditPage> {
	const { page_size = 100 } = query;
	const records = await ask(secrets.rpc('audit_search', query));
	if (records.length < page_size) return { records, next: null };
	// Records without an id wait for their seal, and are on the first page only: the next one starts with the rest.
	return { records, next: records[records.length - 1].id ?? Number.MAX_SAFE_INTEGER };
}
