/**
 * Copies a text that is yet to be fetched. False if the browser does not allow it; then, if that can be known, nothing
 * was fetched. What `fetchText` throws is thrown on.
 */
export async function copyFetched(fetchText: () => Promise<string>): Promise<boolean> {
	if (!navigator.clipboard?.write || typeof ClipboardItem === 'undefined' || (await isDenied())) return false;
	let failure: unknown;
	const blob = fetchText().then(
		(text) => new Blob([text], { type: 'text/plain' }),
		(error: unknown) => {
			failure = error;
			throw error;
		},
	);
	blob.catch(() => {});
	try {
		// The promise, not the text: Safari only allows what is called within the click.
		await navigator.clipboard.write([new ClipboardItem({ 'text/plain': blob })]);
		return true;
	} catch {
		await blob.catch(() => {});
		if (failure) throw failure;
		return false;
	}
}

async function isDenied(): Promise<boolean> {
	try {
		const { state } = await navigator.permissions.query({ name: 'clipboard-write' as PermissionName });
		return state === 'denied';
	} catch {
		return false; // a browser that does not know this permission
	}
}
