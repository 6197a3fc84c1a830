import { getContext, setContext } from 'svelte';

// How dialogs and alert dialogs look.

export const overlayLook = 'fixed inset-0 z-40 animate-appear bg-[rgb(10_10_20/0.45)]';

export const panelLook =
	'fixed inset-x-0 bottom-0 z-40 flex max-h-[calc(100dvh-3rem)] w-full animate-rise flex-col overflow-hidden ' +
	'rounded-t-xl border bg-raised shadow-lg outline-none ' +
	'sm:inset-x-4 sm:top-[min(12vh,8rem)] sm:bottom-auto sm:mx-auto sm:max-h-[calc(100dvh-10rem)] sm:max-w-lg ' +
	'sm:rounded-xl';

export const buttonless =
	'-mt-1 -mr-2 inline-flex size-8 shrink-0 items-center justify-center rounded-md text-muted ' +
	'hover:bg-hover hover:text-text';

const DIALOG = Symbol('dialog');
export const beDialog = () => setContext(DIALOG, true);
/** Whether a component is part of a dialog: an open tooltip of bits-ui would suspend the dialog's hold on the focus. */
export const isInDialog = () => getContext(DIALOG) === true;
