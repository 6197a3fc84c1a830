// The one value that is shown at a time. It is in memory only, for half a minute at most, and gone as soon as the
// reader looks elsewhere.

import { onMount } from 'svelte';
import { beforeNavigate } from '$app/navigation';
import { toasts } from '$lib/toasts.svelte';

export const SHOWN_FOR = 30; // seconds

export class Reveal {
	/** Which one is shown, and which one is being fetched. */
	key = $state<string | null>(null);
	pending = $state<string | null>(null);
	value = $state.raw('');
	/** Seconds until it hides itself. */
	left = $state(0);

	#request = 0;
	#timer: ReturnType<typeof setInterval> | undefined;

	/** Shows a value in the place of the one before. */
	async show(key: string, name: string, fetchValue: () => Promise<string>) {
		this.hide();
		const request = ++this.#request;
		this.pending = key;
		try {
			const value = await fetchValue();
			if (request !== this.#request) return;
			this.key = key;
			this.value = value;
			this.#countDown();
			toasts.say(`The value of ${name} is shown. It hides in ${SHOWN_FOR} seconds.`);
		} finally {
			if (request === this.#request) this.pending = null;
		}
	}

	hide = () => {
		this.#request++;
		this.pending = null;
		clearInterval(this.#timer);
		if (this.key) toasts.say('The value is hidden.');
		this.key = null;
		this.value = '';
	};

	#countDown() {
		const end = Date.now() + SHOWN_FOR * 1000;
		const tick = () => {
			this.left = Math.ceil((end - Date.now()) / 1000);
			if (this.left <= 0) this.hide();
		};
		tick();
		this.#timer = setInterval(tick, 250);
	}
}

/** A Reveal for this page, which hides its value when the page is left or not looked at. */
export function useReveal(): Reveal {
	const reveal = new Reveal();
	beforeNavigate(reveal.hide);
	onMount(() => {
		const left = () => document.hidden && reveal.hide();
		document.addEventListener('visibilitychange', left);
		window.addEventListener('blur', reveal.hide);
		window.addEventListener('pagehide', reveal.hide);
		return () => {
			document.removeEventListener('visibilitychange', left);
			window.removeEventListener('blur', reveal.hide);
			window.removeEventListener('pagehide', reveal.hide);
			reveal.hide();
		};
	});
	return reveal;
}
