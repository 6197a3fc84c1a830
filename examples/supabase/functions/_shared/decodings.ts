// A text as those see it who decode it, and where in the original each byte is.

import { bytesOf } from './template.ts';

/** Bytes, a character each, and from where to where the original has them. */
export interface View {
	bytes: string;
	from: Uint32Array;
	to: Uint32Array;
}

type Decoder = [token: RegExp, decode: (token: string) => string];

const ENTITIES: Record<string, string> = { amp: '&', apos: "'", gt: '>', lt: '<', quot: '"' };

/** A pair of surrogates is one character. */
const JSON_ESCAPE = /\\ud[89ab][\da-f]{2}\\ud[c-f][\da-f]{2}|\\u[\da-f]{4}|\\["\\/bfnrt]/gi;

const DECODERS: Decoder[] = [
	[JSON_ESCAPE, (token) => bytesOf(JSON.parse(`"${token}"`))],
	[/%[\da-f]{2}/gi, (token) => String.fromCharCode(parseInt(token.slice(1), 16))],
	[/&(?:#\d{1,7}|#x[\da-f]{1,6}|amp|apos|gt|lt|quot);/gi, (token) => entity(token.slice(1, -1).toLowerCase())],
];

function entity(name: string): string {
	if (!name.startsWith('#')) return ENTITIES[name];
	const code = name[1] === 'x' ? parseInt(name.slice(2), 16) : Number(name.slice(1));
	return code <= 0x10ffff ? bytesOf(String.fromCodePoint(code)) : '';
}

export function plain(bytes: string): View {
	const { length } = bytes;
	const from = new Uint32Array(length), to = new Uint32Array(length);
	for (let at = 0; at < length; at++) to[at] = (from[at] = at) + 1;
	return { bytes, from, to };
}

/** The view itself, and what comes out of decoding it up to so many times, in any way. */
export function* decodings(view: View, layers: number): Generator<View> {
	yield view;
	if (layers === 0) return;
	for (const decoder of DECODERS) {
		const decoded = decode(view, decoder);
		if (decoded) yield* decodings(decoded, layers - 1);
	}
}

function decode({ bytes, from, to }: View, [token, decodeToken]: Decoder): View | null {
	const decoded: View = { bytes: '', from: new Uint32Array(bytes.length), to: new Uint32Array(bytes.length) };
	let at = 0;
	for (const { 0: found, index } of bytes.matchAll(token)) {
		copy(at, index);
		const { length } = decoded.bytes;
		decoded.bytes += decodeToken(found);
		decoded.from.fill(from[index], length, decoded.bytes.length);
		decoded.to.fill(to[index + found.length - 1], length, decoded.bytes.length);
		at = index + found.length;
	}
	if (at === 0) return null;
	copy(at, bytes.length);
	return decoded;

	function copy(start: number, end: number): void {
		decoded.from.set(from.subarray(start, end), decoded.bytes.length);
		decoded.to.set(to.subarray(start, end), decoded.bytes.length);
		decoded.bytes += bytes.slice(start, end);
	}
}
