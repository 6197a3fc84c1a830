// The JSON API as functions. Whatever is not a good answer is thrown as an ApiError.

import { browser } from '$app/environment';
import type {
	ApiErrorBody, AuditPage, AuditVerification, Expire, Findings, Issue, KekRotation, KekState, ListSecrets,
	NewSecret, NewVersion, ProjectSealStatus, RevealSecret, Revealed, Rollback, RotateKek, SearchAudit, SecretInfo, SecretPage,
	SecretVersionInfo, Versions,
} from './api-types';

export class ApiError extends Error {
	readonly code: string;
	readonly status: number;
	readonly detail: string | null;
	readonly hint: string | null;
	readonly issues: Issue[];
	readonly requestId: string | null;

	constructor(status: number, error: ApiErrorBody['error'], requestId: string | null = null) {
		super(error.message);
		this.name = 'ApiError';
		this.status = status;
		this.code = error.code;
		this.detail = error.detail;
		this.hint = error.hint;
		this.issues = error.issues ?? [];
		this.requestId = requestId;
	}
}

/** Any thrown thing as an ApiError. */
export function asApiError(error: unknown): ApiError {
	if (error instanceof ApiError) return error;
	return new ApiError(0, {
		code: 'unavailable', message: 'The server could not be reached.', detail: null,
		hint: 'Check your connection and try again.',
	});
}

type Fetch = typeof globalThis.fetch;
type Query = Record<string, string | number | boolean | null | undefined>;

/** A query string of what is set; '' if nothing is. */
export function queryOf(query: Query): string {
	const set = Object.entries(query).filter(([, value]) => value || value === 0);
	const text = new URLSearchParams(set.map(([name, value]) => [name, String(value)])).toString();
	return text && `?${text}`;
}

async function refusal(response: Response): Promise<ApiError> {
	const requestId = response.headers.get('x-request-id');
	try {
		const { error } = (await response.json()) as ApiErrorBody;
		return new ApiError(response.status, error, requestId);
	} catch {
		const message = `The server answered with status ${response.status}.`;
		return new ApiError(response.status, { code: 'internal', message, detail: null, hint: null }, requestId);
	}
}

export function createApi(fetch: Fetch) {
	async function call<Answer>(method: string, path: string, body?: object, signal?: AbortSignal): Promise<Answer> {
		const init: RequestInit = { method, signal };
		if (body) {
			init.headers = { 'content-type': 'application/json' };
			init.body = JSON.stringify(body);
		}
		const response = await fetch(path, init);
		if (response.status === 401 && browser) {
			// The session has ended: sign in again, and come back.
			location.assign(`/login${queryOf({ next: location.pathname + location.search })}`);
		}
		if (!response.ok) throw await refusal(response);
		return (response.status === 204 ? undefined : await response.json()) as Answer;
	}
	const ofProject = (project: string) => `/api/projects/${encodeURIComponent(project)}/secrets`;
	const ofSecret = (project: string, id: string) => `${ofProject(project)}/${encodeURIComponent(id)}`;

	return {
		listSecrets: (project: string, query: ListSecrets) => call<SecretPage>('GET', ofProject(project) + queryOf(query)),
		seal: (project: string) => call<ProjectSealStatus>('GET', `/api/projects/${encodeURIComponent(project)}/seal`),
		createSecret: (project: string, body: NewSecret) => call<SecretVersionInfo>('POST', ofProject(project), body),
		putSecret: (project: string, id: string, body: NewVersion) =>
			call<SecretVersionInfo>('PUT', ofSecret(project, id), body),
		expireSecret: (project: string, id: string, body: Expire) => call<SecretInfo>('PATCH', ofSecret(project, id), body),
		deleteSecret: (project: string, id: string) => call<SecretInfo>('DELETE', ofSecret(project, id)),
		undeleteSecret: (project: string, id: string) => call<SecretInfo>('POST', `${ofSecret(project, id)}/undelete`),
		purgeSecret: (project: string, id: string, confirm: string) =>
			call<void>('DELETE', ofSecret(project, id) + queryOf({ purge: true, confirm })),
		reveal: (project: string, id: string, body: RevealSecret) =>
			call<Revealed>('POST', `${ofSecret(project, id)}/reveal`, body),
		versions: (project: string, id: string) => call<Versions>('GET', `${ofSecret(project, id)}/versions`),
		rollback: (project: string, id: string, body: Rollback) =>
			call<SecretVersionInfo>('POST', `${ofSecret(project, id)}/rollback`, body),

		keks: () => call<KekState>('GET', '/api/v1/kek/status'),
		rotateKek: (body: RotateKek) => call<KekRotation>('POST', '/api/v1/kek/rotate', body),
		doctor: () => call<Findings>('GET', '/api/v1/doctor'),

		audit: (query: SearchAudit) => call<AuditPage>('GET', '/api/audit-logs' + queryOf(query)),
		verifyAudit: (signal?: AbortSignal) => call<AuditVerification>('GET', '/api/audit-logs/verify', undefined, signal),
	};
}

export const api = createApi((...args) => globalThis.fetch(...args));
