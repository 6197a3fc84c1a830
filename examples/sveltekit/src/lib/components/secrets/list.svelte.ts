// The secrets that a page shows: the first page of them came with the page, the rest when asked for.

import { api, asApiError, type ApiError } from '$lib/api';
import { plural } from '$lib/format';
import type { Result } from '$lib/load';
import type { ListSecrets, SecretInfo, SecretPage } from '$lib/api-types';
import { toasts } from '$lib/toasts.svelte';

export const PAGE_SIZE = 50;

export class SecretList {
	secrets = $state.raw<SecretInfo[]>([]);
	next = $state<string | null>(null);
	seal = $state.raw<SecretPage['seal']>({ sealed: false, cause: null, remedy: null });
	/** Why there is no list at all. */
	problem = $state.raw<ApiError | null>(null);
	/** Why the next page did not come. */
	moreProblem = $state.raw<ApiError | null>(null);
	loadingMore = $state(false);

	readonly project: string;
	readonly #query: ListSecrets;
	/** How often the list was taken: an answer that another one has overtaken does not fit it any more. */
	#turn = 0;
	#refreshes = 0;
	#refreshing: Promise<void> | undefined;

	constructor(project: string, query: ListSecrets, first: Result<SecretPage>) {
		this.project = project;
		this.#query = query;
		this.problem = first.problem;
		if (first.value) this.#take(first.value.secrets, first.value);
	}

	#take(secrets: SecretInfo[], { next, seal }: SecretPage) {
		this.#turn++;
		this.secrets = secrets;
		this.next = next;
		this.seal = seal;
	}

	#fetch = (query: ListSecrets) => api.listSecrets(this.project, { ...this.#query, ...query });

	async more() {
		if (!this.next || this.loadingMore) return;
		this.loadingMore = true;
		this.moreProblem = null;
		const turn = this.#turn;
		try {
			const page = await this.#fetch({ after: this.next });
			if (turn !== this.#turn) return;
			this.#take([...this.secrets, ...page.secrets], page);
			toasts.say(`${plural(page.secrets.length, 'more secret')}.`);
		} catch (error) {
			this.moreProblem = asApiError(error);
		} finally {
			this.loadingMore = false;
		}
	}

	/** Fetches anew as much as is shown. Of several at a time, the last one counts, and all wait for it. */
	refresh(): Promise<void> {
		return (this.#refreshing = this.#refresh(++this.#refreshes));
	}

	async #refresh(number: number): Promise<void> {
		const isLast = () => number === this.#refreshes;
		try {
			let page = await this.#fetch({});
			let secrets = page.secrets;
			while (isLast() && page.next && secrets.length < this.secrets.length) {
				page = await this.#fetch({ after: page.next });
				secrets = [...secrets, ...page.secrets];
			}
			if (!isLast()) return this.#refreshing;
			this.#take(secrets, page);
			this.problem = null;
		} catch (error) {
			// What is shown is better than nothing.
			if (this.problem) this.problem = asApiError(error);
		}
	}

	/** Looks whether a sealed project is open again; if so, fetches the list. True when it is. */
	async lookAtSeal(): Promise<boolean> {
		try {
			this.seal = await api.seal(this.project);
		} catch {
			return false; // not now; the next look tells
		}
		if (!this.seal.sealed) await this.refresh();
		return !this.seal.sealed;
	}

	find = (id: string) => this.secrets.find((secret) => secret.id === id);
}
