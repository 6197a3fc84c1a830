/** How everything looks that one types into. */
export const fieldLook =
	'field-text block w-full min-w-0 rounded-md border border-line-strong bg-surface px-2.5 text-text shadow-sm ' +
	'placeholder:text-faint hover:border-faint focus-visible:border-accent focus-visible:outline-offset-0 ' +
	'aria-invalid:border-bad disabled:opacity-50';
