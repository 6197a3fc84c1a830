import { endpoint } from '$lib/server/endpoint';
import { ask } from '$lib/server/errors';
import { rotateKek } from '$lib/server/schemas/operations';

/** 202: new data has the new KEK at once; a background worker goes on with the rest. */
export const POST = endpoint({ body: rotateKek, status: 202 }, ({ secrets, body }) => ask(secrets.rpc('kek_rotate', body)));
