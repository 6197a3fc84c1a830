// The records that a page shows: the first page of them came with the page, older ones when asked for.

import { api, asApiError, type ApiError } from '$lib/api';
import type { AuditPage, AuditRecord, SearchAudit } from '$lib/api-types';
import { plural } from '$lib/format';
import type { Result } from '$lib/load';
import { toasts } from '$lib/toasts.svelte';

export class AuditLog {
	records = $state.raw<AuditRecord[]>([]);
	next = $state<number | null>(null);
	problem = $state.raw<ApiError | null>(null);
	moreProblem = $state.raw<ApiError | null>(null);
	loading = $state(false);

	readonly #query: SearchAudit;

	constructor(query: SearchAudit, first: Result<AuditPage>) {
		this.#query = query;
		this.problem = first.problem;
		if (first.value) ({ records: this.records, next: this.next } = first.value);
	}

	async more() {
		if (!this.next || this.loading) return;
		this.loading = true;
		this.moreProblem = null;
		const before = this.records;
		try {
			const page = await api.audit({ ...this.#query, after: this.next });
			if (before !== this.records) return; // they were fetched anew meanwhile
			this.records = [...this.records, ...page.records];
			this.next = page.next;
			toasts.say(`${plural(page.records.length, 'older record')}.`);
		} catch (error) {
			this.moreProblem = asApiError(error);
		} finally {
			this.loading = false;
		}
	}

	async refresh() {
		this.loading = true;
		try {
			({ records: this.records, next: this.next } = await api.audit(this.#query));
			this.problem = this.moreProblem = null;
		} catch (error) {
			const problem = asApiError(error);
			if (this.problem) this.problem = problem;
			else this.moreProblem = problem;
		} finally {
			this.loading = false;
		}
	}
}
