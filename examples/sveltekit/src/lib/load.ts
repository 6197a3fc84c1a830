import { error } from '@sveltejs/kit';
import { asApiError, type ApiError } from './api';

export type Result<T> = { value: T; problem: null } | { value: null; problem: ApiError };

/** What a page shows: the answer, or what went wrong in its place. Who may not see it gets the error page. */
export async function attempt<T>(answer: Promise<T>): Promise<Result<T>> {
	try {
		return { value: await answer, problem: null };
	} catch (thrown) {
		const problem = asApiError(thrown);
		if (problem.code === '42501') error(403, { message: problem.message, id: problem.requestId ?? '' });
		return { value: null, problem };
	}
}
