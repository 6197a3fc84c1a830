// {{ secrets.NAME }} in texts. Whether a name is legal, the database says.

const PLACEHOLDER = /\{\{\s*secrets\.([^{}]*)\}\}/g;

export type Values = ReadonlyMap<string, string>;
/** How a value is written at its place, so that it stays one value there. */
export type Escape = (value: string, name: string) => string;

export function namesIn(text: string): string[] {
	return Array.from(text.matchAll(PLACEHOLDER), ([, name]) => name.trim());
}

/** In one pass: what looks like a placeholder in a value stays as it is. */
export function fill(text: string, values: Values, escape: Escape): string {
	return text.replace(PLACEHOLDER, (_, padded: string) => {
		const name = padded.trim();
		const value = values.get(name);
		if (value === undefined) throw new Error('a placeholder without a value');
		return escape(value, name);
	});
}

/** Inside of a string of a JSON text. */
export const inJson: Escape = (value) => JSON.stringify(value).slice(1, -1);
/** In a URL's query, and in a form's body. More than encodeURIComponent, and no URL parser then changes it. */
export const inQuery: Escape = (value) => encodeURIComponent(value).replace(/[!'()*]/g, hex);
/** In an attribute or an element's text. */
export const inXml: Escape = (value) => value.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
export const asIs: Escape = (value) => value;

function hex(character: string): string {
	return `%${character.charCodeAt(0).toString(16).toUpperCase()}`;
}

/** A header's value is bytes, here UTF-8; fetch wants them as characters. Line breaks would begin further headers. */
export function inHeader(unusable: (name: string) => Error): Escape {
	return (value, name) => {
		if (/[^\t -~\u0080-\uffff]/.test(value)) throw unusable(name);
		return bytesOf(value);
	};
}

/** The UTF-8 of a text, a character a byte. */
export function bytesOf(text: string): string {
	const bytes = new TextEncoder().encode(text);
	let characters = '';
	for (let at = 0; at < bytes.length; at += 4096) characters += String.fromCharCode(...bytes.subarray(at, at + 4096));
	return characters;
}
