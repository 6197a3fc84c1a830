// The filters of the audit log, as the URL of the page has them: they are named like the API's.

import type { Outcome, SearchAudit } from '$lib/api-types';

export const PAGE_SIZE = 50;

export type AuditFilters = Omit<SearchAudit, 'after' | 'page_size' | 'format'>;

export function filtersOf(url: URL): AuditFilters {
	const of = (name: string) => url.searchParams.get(name) || undefined;
	return {
		project_id: of('project_id'), since: of('since'), until: of('until'), action: of('action'),
		outcome: of('outcome') as Outcome | undefined, actor: of('actor'), name: of('name'),
	};
}

export const isFiltered = (filters: AuditFilters) => Object.values(filters).some(Boolean);
