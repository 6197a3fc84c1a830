// The state of keys, followed: often while a rotation runs or the server is sealed, now and then otherwise.

import { api, asApiError, type ApiError } from '$lib/api';
import type { Kek, KekState } from '$lib/api-types';
import type { Result } from '$lib/load';
import { toasts } from '$lib/toasts.svelte';
import { count, duration } from '$lib/format';

const OFTEN = 1000;
const SELDOM = 60_000; // each look is a record of the audit log

export class Keys {
	state = $state.raw<KekState | null>(null);
	problem = $state.raw<ApiError | null>(null);

	#said = '';

	constructor({ value, problem }: Result<KekState>) {
		this.state = value;
		this.problem = problem;
	}

	active = $derived(this.state?.keks.find(({ status }) => status === 'active'));
	rotating = $derived((this.active?.remaining ?? 0) > 0);
	sealed = $derived(this.state?.seal.sealed ?? false);

	refresh = async () => {
		try {
			const wasRotating = this.rotating;
			this.state = await api.keks();
			this.problem = null;
			this.#tell(wasRotating);
		} catch (error) {
			this.problem = asApiError(error);
		}
	};

	/** Calls `refresh` until the returned function is called. */
	follow = () => {
		let timer: ReturnType<typeof setTimeout>;
		let stopped = false;
		const next = () => {
			const wait = this.problem ? SELDOM : this.rotating || this.sealed ? OFTEN : SELDOM;
			timer = setTimeout(async () => {
				if (!document.hidden) await this.refresh();
				if (!stopped) next();
			}, wait);
		};
		next();
		return () => {
			stopped = true;
			clearTimeout(timer);
		};
	};

	/** A screen reader hears of every quarter, and of the end. */
	#tell(wasRotating: boolean) {
		if (!this.active) return;
		const { done, remaining } = this.active;
		if (wasRotating && !this.rotating) {
			this.#said = '';
			toasts.show('The rotation is finished.');
		} else if (this.rotating && done !== null && remaining !== null) {
			const quarter = Math.floor((4 * done) / (done + remaining));
			const text = `${quarter * 25} percent rewrapped.`;
			if (quarter > 0 && text !== this.#said) toasts.say((this.#said = text));
		}
	}
}

/** "120 of 500 data keys, 40 per second, done in about 10 seconds". */
export function progressText(kek: Kek, now: number): string {
	const done = kek.done ?? 0;
	const parts = [`${count(done)} of ${count(done + (kek.remaining ?? 0))} data keys`];
	if (kek.per_second) parts.push(`${count(Math.round(kek.per_second * 10) / 10)} per second`);
	if (kek.estimated_end) parts.push(`done in ${duration(Date.parse(kek.estimated_end) - now)}`);
	return parts.join(' · ');
}
