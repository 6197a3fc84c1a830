import { browser } from '$app/environment';

export type Theme = 'system' | 'light' | 'dark';

// app.html has set data-theme before anything was painted.
const chosen = browser ? document.documentElement.dataset.theme : undefined;
let current = $state<Theme>(chosen === 'light' || chosen === 'dark' ? chosen : 'system');

export const theme = {
	get current() {
		return current;
	},
	set current(wanted: Theme) {
		current = wanted;
		if (wanted === 'system') delete document.documentElement.dataset.theme;
		else document.documentElement.dataset.theme = wanted;
		try {
			if (wanted === 'system') localStorage.removeItem('theme');
			else localStorage.setItem('theme', wanted);
		} catch {
			// No storage: it lasts as long as the page.
		}
	},
};
