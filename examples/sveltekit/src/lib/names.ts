// Names of secrets: the rule of the database, told before it is asked.

/** What is wrong with a name, or null. */
export function nameProblem(name: string): string | null {
	if (!name) return 'Give it a name, like STRIPE_KEY.';
	if (name.length > 255) return `At most 255 characters; this has ${name.length}.`;
	if (!/^[A-Za-z_]/.test(name)) return 'Begin with a letter or an underscore.';
	if (!/^[A-Za-z0-9_.-]+$/.test(name)) return 'Use letters, digits and _ . - only.';
	return null;
}

/** The nearest legal name, or null if nothing is left of it. */
export function fixedName(name: string): string | null {
	const fixed = name
		.normalize('NFKD')
		.replace(/\p{Mark}/gu, '')
		.replace(/^[^A-Za-z0-9_.-]+|[^A-Za-z0-9_.-]+$/g, '')
		.replace(/[^A-Za-z0-9_.-]+/g, '_')
		.replace(/^[^A-Za-z_]/, '_$&')
		.slice(0, 255);
	return /[A-Za-z0-9]/.test(fixed) ? fixed : null;
}
