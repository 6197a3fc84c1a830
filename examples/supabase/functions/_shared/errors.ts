// Errors as the functions answer them: {"error": {code, message, detail, hint}}. The database's codes are SQLSTATEs.

type Text = string | null;

/** An error that its caller may read: never with the value of a secret in it. */
export class Failure extends Error {
	readonly status: number;
	readonly code: string;
	readonly detail: Text;
	readonly hint: Text;

	constructor(status: number, code: string, message: string, detail: Text = null, hint: Text = null) {
		super(message);
		this.status = status;
		this.code = code;
		this.detail = detail;
		this.hint = hint;
	}

	toResponse(): Response {
		const { code, message, detail, hint } = this;
		return Response.json({ error: { code, message, detail, hint } }, { status: this.status });
	}
}

export function badArgument(message: string): Failure {
	return new Failure(400, '22023', message);
}

export function denied(role: string, message: string): Failure {
	return new Failure(statusOf('42501', role), '42501', message);
}

const STATUS: Record<string, number> = {
	'22004': 400, '22023': 400, '22P02': 400, '23503': 409, '25006': 405,
	PGRST300: 401, PGRST301: 401, PGRST302: 401, PGRST303: 401,
};

export interface DatabaseError {
	code: string;
	message: string;
	details: string;
	hint: string;
}

/** What supabase-js returned as `error`, for a caller with this role. */
export function ofDatabase({ code, message, details, hint }: DatabaseError, role: string): Failure {
	// No answer from the database: supabase-js then tells what fetch threw, addresses included. Of the gateway's own
	// codes, PGRST1, 2 and 3 are about the request, the others about a database that it has not.
	if (!/^([0-9A-Z]{5}|PGRST[123]\w+)$/.test(code ?? '')) {
		return new Failure(502, 'database_unreachable', 'no answer from the database');
	}
	return new Failure(statusOf(code, role), code, message, details, hint);
}

function statusOf(code: string, role: string): number {
	if (code === '42501') return role === 'anon' ? 401 : 403;
	return /^PT[45]\d\d$/.test(code) ? Number(code.slice(2)) : STATUS[code] ?? 500;
}
