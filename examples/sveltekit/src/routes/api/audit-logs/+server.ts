import type { AuditPage, AuditRecord, SearchAudit } from '$lib/api-types';
import { auditPage } from '$lib/server/audit';
import { csvLine, streamOf } from '$lib/server/csv';
import { endpoint, type Secrets } from '$lib/server/endpoint';
import { searchAudit } from '$lib/server/schemas/operations';

const COLUMNS: (keyof AuditRecord)[] = [
	'id', 'time', 'action', 'outcome', 'sqlstate', 'project_id', 'secret_id', 'name', 'version', 'kek_id', 'purpose',
	'detail', 'actor', 'actor_role', 'claimed_sub', 'claimed_role', 'client_address', 'application_name', 'request_id',
	'transaction_id', 'times',
];
const LARGEST_PAGE = 1000;

export const GET = endpoint({ query: searchAudit }, async ({ secrets, query: { format, ...query } }) => {
	if (!format) return auditPage(secrets, query);
	const search = { ...query, page_size: LARGEST_PAGE };
	// The first page before the answer begins, so that a refusal is one.
	const lines = csv(secrets, search, await auditPage(secrets, search));
	return new Response(streamOf(lines), {
		headers: {
			'content-type': 'text/csv; charset=utf-8',
			'content-disposition': 'attachment; filename="audit-logs.csv"',
		},
	});
});

/** All matching records, a page at a time, as fast as they are taken. An error breaks the download off. */
async function* csv(secrets: Secrets, search: SearchAudit, page: AuditPage) {
	yield csvLine(COLUMNS);
	for (;;) {
		yield page.records.map((record) => csvLine(COLUMNS.map((column) => record[column]))).join('');
		if (page.next === null) return;
		page = await auditPage(secrets, { ...search, after: page.next });
	}
}
