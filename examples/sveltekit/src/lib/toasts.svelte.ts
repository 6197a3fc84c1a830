// Short messages at the edge of the page, told to screen readers too.

import { untrack } from 'svelte';

export type Toast = {
	id: number;
	tone: 'good' | 'bad' | 'plain';
	text: string;
	detail?: string;
	action?: { label: string; run: () => void };
};

let last = 0;
class Toasts {
	shown = $state<Toast[]>([]);
	/** For what is seen anyway and must also be heard. */
	said = $state('');

	show(text: string, more: Partial<Omit<Toast, 'id' | 'text'>> = {}): number {
		const id = ++last;
		const before = untrack(() => this.shown);
		this.shown = [...before.slice(-3), { tone: 'good', ...more, id, text }];
		return id;
	}

	dismiss(id: number) {
		this.shown = this.shown.filter((toast) => toast.id !== id);
	}

	say(text: string) {
		// The same text twice is only heard twice if it changes.
		this.said = untrack(() => this.said) === text ? `${text}\u00a0` : text;
	}
}

export const toasts = new Toasts();
