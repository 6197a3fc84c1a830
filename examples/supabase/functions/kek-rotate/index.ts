// Rotates the KEK, for a scheduler or an operator, and waits a while for its end.
//
//     POST {"reason": "quarterly", "wait_seconds": 10}
//     200  {"finished": true, "kek_id": 2, "remaining": 0, …}
//     202  {"finished": false, "kek_id": 2, "remaining": 1234, …}
//
// While a rotation runs, calling again returns that one. When it has finished, calling again begins another: to watch
// one for longer, call kek_status. Which roles may rotate, the database decides.

import { secretsOf } from '../_shared/caller.ts';
import { endpoint } from '../_shared/endpoint.ts';
import { badArgument, ofDatabase } from '../_shared/errors.ts';
import { type Json, onlyKeys } from '../_shared/json.ts';

const LONGEST_WAIT = 60;

Deno.serve(endpoint('kek-rotate', async (body, caller, gone) => {
	const { reason, wait_seconds } = readArguments(body);
	const secrets = secretsOf(caller);
	const until = Date.now() + wait_seconds * 1000;

	const { data: started, error } = await secrets.rpc('kek_rotate', { reason });
	if (error) throw ofDatabase(error, caller.role);
	const { finished_at: _, ...rotation } = started;

	// Each look leaves an audit record: soon at first, as most rotations take a moment, then less often.
	for (let pause = 100; ; pause = Math.min(pause * 2, 5000)) {
		const { data: keks, error } = await secrets.rpc('kek_status');
		if (error) throw ofDatabase(error, caller.role);
		const active = keks.find(({ status }) => status === 'active');
		const finished = active?.remaining === 0 && !keks.some(({ status }) => status === 'retiring');
		const left = until - Date.now();
		if (finished || left <= 0 || gone.aborted) {
			const { remaining, done, per_second, estimated_end, last_error } = active ?? {};
			const progress = { remaining, done, per_second, estimated_end, last_error };
			return Response.json({ finished, ...rotation, ...progress }, { status: finished ? 200 : 202 });
		}
		await new Promise((wake) => setTimeout(wake, Math.min(pause, left)));
	}
}));

function readArguments(body: Json): { reason?: string; wait_seconds: number } {
	onlyKeys(body, ['reason', 'wait_seconds'], 'the body');
	const { reason, wait_seconds = 0 } = body;
	if (reason !== undefined && typeof reason !== 'string') throw badArgument('reason must be a string');
	if (typeof wait_seconds !== 'number' || !(wait_seconds >= 0 && wait_seconds <= LONGEST_WAIT)) {
		throw badArgument(`wait_seconds must be a number from 0 to ${LONGEST_WAIT}`);
	}
	return { reason, wait_seconds };
}
