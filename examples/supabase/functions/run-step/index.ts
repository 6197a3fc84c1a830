// Runs one HTTP step of a workflow: puts the project's secrets into a request, sends it, answers what came back.
//
//     POST {"project_id": "…", "request": {"method": "POST", "url": "https://api.example.com/v1/items",
//           "headers": {"authorization": "Bearer {{ secrets.API_KEY }}"}, "body": {"name": "x"}}}
//     200  {"status": 201, "headers": {…}, "body": "…"}
//
// For the workflow engine, with a token of the role service_role. ../../README.md tells the settings.

import { type Caller, secretsOf } from '../_shared/caller.ts';
import { endpoint } from '../_shared/endpoint.ts';
import { badArgument, denied, Failure, ofDatabase } from '../_shared/errors.ts';
import { onlyKeys } from '../_shared/json.ts';
import { scrub } from '../_shared/scrub.ts';
import type { Values } from '../_shared/template.ts';
import { allowedHosts, isAllowedHost, isAllowedScheme } from './hosts.ts';
import { type Answer, send } from './send.ts';
import { fillStep, namesOf, readStep } from './step.ts';

const ALLOWED_HOSTS = allowedHosts(Deno.env.get('RUN_STEP_ALLOWED_HOSTS') ?? '');
const ALLOW_HTTP = Deno.env.get('RUN_STEP_ALLOW_HTTP') === 'true';
const TIMEOUT = Number(Deno.env.get('RUN_STEP_TIMEOUT_MS') ?? 30_000);

Deno.serve(endpoint('run-step', async (body, caller, gone) => {
	// Users may reveal their secrets, but not through this machine's network.
	if (caller.role !== 'service_role') throw denied(caller.role, 'only the role service_role runs steps');
	onlyKeys(body, ['project_id', 'request'], 'the body');
	if (typeof body.project_id !== 'string') throw badArgument('project_id must be a UUID');
	const step = readStep(body.request);
	if (!isAllowedScheme(step.url, ALLOW_HTTP)) throw new Failure(403, 'scheme_not_allowed', 'only https');
	if (!isAllowedHost(step.url, ALLOWED_HOSTS)) {
		const hint = 'RUN_STEP_ALLOWED_HOSTS lists those that they may.';
		throw new Failure(403, 'host_not_allowed', 'steps may not call this host', step.url.host, hint);
	}
	const signal = AbortSignal.any([gone, AbortSignal.timeout(TIMEOUT)]);
	const values = await reveal(caller, body.project_id, namesOf(step), signal);
	return Response.json(scrubbed(await send(fillStep(step, values), signal), values));
}));

/** All in one call. Also without names: the database decides whether the caller may work for this project. */
async function reveal(caller: Caller, project_id: string, names: string[], signal: AbortSignal): Promise<Values> {
	const call = secretsOf(caller).rpc('secret_get_many', { project_id, names, purpose: 'run' });
	const { data, error } = await call.abortSignal(signal);
	if (error) throw ofDatabase(error, caller.role);
	const missing = data.filter(({ status }) => status !== 'ok').map(({ name, status }) => `${name}: ${status}`);
	if (missing.length) {
		const message = 'secrets that the step needs cannot be used';
		throw new Failure(424, 'secrets_unavailable', message, missing.join(', '), 'Nothing was sent.');
	}
	return new Map(data.map(({ name, value }) => [name, value!]));
}

function scrubbed({ status, headers, body }: Answer, values: Values): Answer {
	const clean = (text: string) => scrub(text, values.values());
	const cleanHeaders = Object.entries(headers).map(([name, value]) => [name, clean(value)]);
	return { status, headers: Object.fromEntries(cleanHeaders), body: clean(body) };
}
