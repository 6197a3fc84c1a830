// Sends the request, and reads an answer of limited length in limited time.

import { Failure } from '../_shared/errors.ts';
import type { Filled } from './step.ts';

const LONGEST_ANSWER = 1024 * 1024;
const HEADERS = [
	'content-language', 'content-type', 'etag', 'last-modified', 'link', 'location', 'retry-after', 'x-request-id',
	'ratelimit-limit', 'ratelimit-remaining', 'ratelimit-reset',
	'x-ratelimit-limit', 'x-ratelimit-remaining', 'x-ratelimit-reset',
];

export interface Answer {
	status: number;
	headers: Record<string, string>;
	body: string;
}

export async function send({ method, url, headers, body }: Filled, signal: AbortSignal): Promise<Answer> {
	try {
		// Redirects are the workflow's to follow: elsewhere, the secrets in this request would go with it.
		const response = await fetch(url, { method, headers, body, signal, redirect: 'manual' });
		return { status: response.status, headers: headersOf(response), body: await textOf(response) };
	} catch (error) {
		// What fetch throws quotes the URL with its query.
		if (error instanceof Failure) throw error;
		if (signal.aborted) throw new Failure(504, 'target_timeout', 'the target did not answer in time', url.host);
		throw new Failure(502, 'target_unreachable', 'no answer from the target', url.host);
	}
}

function headersOf({ headers }: Response): Record<string, string> {
	return Object.fromEntries([...headers].filter(([name]) => HEADERS.includes(name)));
}

async function textOf({ body, headers }: Response): Promise<string> {
	const decoder = decoderFor(headers.get('content-type') ?? '');
	let text = '', length = 0;
	for await (const chunk of body ?? []) {
		length += chunk.length;
		if (length > LONGEST_ANSWER) {
			throw new Failure(502, 'target_answer_too_long', 'the answer is too long', `more than ${LONGEST_ANSWER} bytes`);
		}
		text += decoder.decode(chunk, { stream: true });
	}
	return text + decoder.decode();
}

function decoderFor(type: string): TextDecoder {
	try {
		return new TextDecoder(/charset="?([^\s;"]+)/i.exec(type)?.[1]);
	} catch {
		return new TextDecoder();
	}
}
