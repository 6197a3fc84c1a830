import { createSubscriber } from 'svelte/reactivity';

const follow = createSubscriber((update) => {
	const timer = setInterval(update, 20_000);
	return () => clearInterval(timer);
});

/** The time in milliseconds; what shows it is shown anew now and then. */
export function now(): number {
	follow();
	return Date.now();
}
