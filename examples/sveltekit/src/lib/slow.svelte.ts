/** True once `busy` has been for a moment: what is quick needs no sign of waiting, which would only flicker. */
export function slow(busy: () => boolean, ms = 180) {
	let value = $state(false);
	$effect(() => {
		if (!busy()) return;
		const timer = setTimeout(() => (value = true), ms);
		return () => {
			clearTimeout(timer);
			value = false;
		};
	});
	return {
		get current() {
			return value;
		},
	};
}
