/** Gives the focus to the page's content if what had it is gone, so that the keyboard goes on from there. */
export function keepFocus() {
	requestAnimationFrame(() =>
		requestAnimationFrame(() => {
			if (document.activeElement === document.body) document.getElementById('content')?.focus();
		}),
	);
}
