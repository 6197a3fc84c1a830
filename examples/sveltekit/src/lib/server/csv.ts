// CSV (RFC 4180) for spreadsheets, which take a cell that begins like a formula for one, and run it.

export function csvLine(cells: unknown[]): string {
	return `${cells.map(cell).join(',')}\r\n`;
}

function cell(given: unknown): string {
	// Many countries' spreadsheets split at semicolons, whatever is quoted for commas: a cell may begin after any of them,
	// and with quotes of its own. The apostrophe makes it text.
	const text = String(given ?? '').replace(/(^|[,;|\t\r\n])(["\s]*)(?=[=+\-@])/g, "$1$2'");
	return /[",;|\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The text as a body, made as fast as it is taken. */
export function streamOf(text: AsyncGenerator<string>): ReadableStream<Uint8Array> {
	const encoder = new TextEncoder();
	return new ReadableStream({
		async pull(controller) {
			const { value, done } = await text.next();
			if (done) controller.close();
			else controller.enqueue(encoder.encode(value));
		},
		async cancel() {
			await text.return(undefined);
		},
	});
}
