// Takes secrets out of what an API answers, as they are and as APIs echo them: in JSON, URLs, forms, HTML, base64.
// An API that means to return a secret finds another way to write it; this is for those that do so thoughtlessly.

import { bytesOf, inJson, inQuery, inXml } from './template.ts';

const MASK = '***';
/** Shorter pieces of base64 are in every text. */
const SHORTEST_PIECE = 4;

const ENCODINGS: ((text: string) => string)[] = [
	(text) => text.trim(), // header values lose their margins
	(text) => inJson(text, ''),
	(text) => inJson(text, '').replaceAll('/', '\\/'),
	(text) => inJson(text, '').replace(/[\u0080-\uffff]/g, unicodeEscape),
	(text) => inQuery(text, ''),
	(text) => encodeURI(text),
	(text) => new URLSearchParams([['', text]]).toString().slice(1),
	(text) => inQuery(text, '').replace(/%../g, (byte) => byte.toLowerCase()),
	(text) => inXml(text, ''),
	(text) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;'),
	bytesOf, // UTF-8 that was taken for Latin-1
];

function unicodeEscape(character: string): string {
	return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** `text` with *** for every value. */
export function scrub(text: string, values: Iterable<string>): string {
	const spans: [number, number][] = [];
	for (const value of values) for (const form of formsOf(value)) addSpans(spans, form, text);
	spans.sort(([a], [b]) => a - b);
	let out = '', at = 0;
	// Overlapping ones become one, or the end of the second would stay.
	for (let next = 0; next < spans.length; ) {
		let [start, end] = spans[next++];
		while (next < spans.length && spans[next][0] < end) end = Math.max(end, spans[next++][1]);
		out += text.slice(at, start) + MASK;
		at = end;
	}
	return out + text.slice(at);
}

/** A value in every encoding, these in every encoding again (JSON in JSON), and in base64. Values can be long. */
function* formsOf(value: string): Generator<string> {
	const once = new Set([value, ...ENCODINGS.map((encode) => encode(value))]);
	for (const form of once) {
		yield form;
		yield* base64Of(form);
		for (const encode of ENCODINGS) yield encode(form);
	}
}

/** A text's base64, and what is always in it where the text is part of a longer one, as in `user:password`. */
function base64Of(text: string): string[] {
	const bytes = bytesOf(text);
	const pieces = [0, 1, 2].map((before) => {
		const encoded = btoa('\0'.repeat(before) + bytes);
		const whole = Math.floor(((before + bytes.length) * 8) / 6);
		return encoded.slice(Math.ceil((before * 8) / 6), whole);
	});
	const standard = [btoa(bytes), ...pieces.filter((piece) => piece.length >= SHORTEST_PIECE)];
	return standard.flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_'), encodeURIComponent(form)]);
}

function addSpans(spans: [number, number][], form: string, text: string): void {
	if (form === '') return;
	for (let at = text.indexOf(form); at >= 0; at = text.indexOf(form, at + 1)) spans.push([at, at + form.length]);
}
