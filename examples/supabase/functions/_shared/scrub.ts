// Takes secrets out of what an API answers, as they are and as APIs echo them: in JSON, URLs, forms, HTML, one in the
// other, and in base64. The answer is decoded, as encoders differ in what they encode. An API that means to return a
// secret finds another way to write it; this is for those that do so thoughtlessly.

import { decodings, plain, type View } from './decodings.ts';
import { bytesOf, inJson, inQuery } from './template.ts';

const MASK = '***';
/** JSON in JSON in a form. */
const LAYERS = 3;
/** Shorter pieces of base64 are in every text. */
const SHORTEST_PIECE = 4;

/** `text` with *** for every value. */
export function scrub(text: string, values: Iterable<string>): string {
	const bytes = bytesOf(text);
	const sought = [...values].flatMap(formsOf).filter((form) => form !== '' && bytes.includes(coreOf(form)));
	if (sought.length === 0) return text;
	const spans: [number, number][] = [];
	for (const view of decodings(plain(bytes), LAYERS)) for (const form of sought) addSpans(spans, form, view);
	return textOf(cut(bytes, spans));
}

/** What to look for, as bytes. */
function formsOf(value: string): string[] {
	const taken = bytesOf(value); // for Latin-1, as the bytes of headers are
	const labelled = new TextDecoder('windows-1252').decode(new TextEncoder().encode(value)); // which is what that label means
	const raw = [value, value.trim(), taken, taken.trim(), labelled]; // header values lose their margins
	const encoded = [value, taken, labelled, inJson(value, ''), inJson(taken, ''), inQuery(value, '')];
	const inForm = raw.map((form) => form.replaceAll(' ', '+')); // before its other characters, which are decoded
	return [...new Set([...raw, ...inForm].map(bytesOf).concat(encoded.map(bytesOf).flatMap(base64Of)))];
}

/** The base64 of bytes, and what is always in it where they are part of longer ones, as in `user:password`. */
function base64Of(bytes: string): string[] {
	const pieces = [0, 1, 2].map((before) => {
		const whole = Math.floor(((before + bytes.length) * 8) / 6);
		return btoa('\0'.repeat(before) + bytes).slice(Math.ceil((before * 8) / 6), whole);
	});
	const forms = [btoa(bytes), ...pieces.filter((piece) => piece.length >= SHORTEST_PIECE)];
	return forms.flatMap((form) => [form, form.replaceAll('+', '-').replaceAll('/', '_')]);
}

/** The longest part that nobody encodes. Where it is not, nothing needs to be decoded. */
function coreOf(form: string): string {
	return (form.match(/[a-z0-9]+/gi) ?? ['']).reduce((longest, run) => run.length > longest.length ? run : longest);
}

/** Values and answers are others' to choose: it must not take long where both repeat themselves. */
function addSpans(spans: [number, number][], form: string, view: View): void {
	const borders = bordersOf(form);
	// How far one occurrence can reach into the next.
	const border = borders[form.length - 1];
	if (border > form.length / 2) return addOverlappingSpans(spans, form, borders, view);
	const { bytes, from, to } = view;
	for (let at = bytes.indexOf(form); at >= 0; at = bytes.indexOf(form, at + form.length - border)) {
		spans.push([from[at], to[at + form.length - 1]]);
	}
}

/** The search of Knuth, Morris and Pratt. */
function addOverlappingSpans(
	spans: [number, number][], form: string, borders: Uint32Array, { bytes, from, to }: View,
): void {
	for (let at = 0, matched = 0; at < bytes.length; at++) {
		const byte = bytes.charCodeAt(at);
		while (matched > 0 && form.charCodeAt(matched) !== byte) matched = borders[matched - 1];
		if (form.charCodeAt(matched) === byte) matched++;
		if (matched < form.length) continue;
		const start = from[at - matched + 1], last = spans.at(-1);
		if (last && start >= last[0] && start < last[1]) last[1] = Math.max(last[1], to[at]);
		else spans.push([start, to[at]]);
		matched = borders[matched - 1];
	}
}

/** For each beginning of a form, how long its longest end is that is also its beginning. */
function bordersOf(form: string): Uint32Array {
	const borders = new Uint32Array(form.length);
	for (let at = 1, matched = 0; at < form.length; at++) {
		while (matched > 0 && form[at] !== form[matched]) matched = borders[matched - 1];
		if (form[at] === form[matched]) matched++;
		borders[at] = matched;
	}
	return borders;
}

function cut(bytes: string, spans: [number, number][]): string {
	spans.sort(([a], [b]) => a - b);
	let out = '', at = 0;
	// Overlapping ones become one, or the end of the second would stay.
	for (let next = 0; next < spans.length; ) {
		let [start, end] = spans[next++];
		while (next < spans.length && spans[next][0] < end) end = Math.max(end, spans[next++][1]);
		out += bytes.slice(at, start) + MASK;
		at = end;
	}
	return out + bytes.slice(at);
}

function textOf(bytes: string): string {
	return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes, (byte) => byte.charCodeAt(0)));
}
