export const menuLook = 'z-50 min-w-44 max-w-72 animate-appear rounded-lg border bg-raised p-1 shadow-lg outline-none';

export const itemLook =
	'flex min-h-9 w-full items-center gap-2.5 rounded-md px-2 py-1.5 text-left text-sm outline-none select-none ' +
	'sm:min-h-8 data-highlighted:bg-hover data-disabled:cursor-default [&_svg]:shrink-0 [&_svg]:opacity-75';
