import type { SecretInfo, SecretVersion } from '$lib/api-types';
import { daysUntil, plural } from '$lib/format';
import type { Tone } from '$lib/ui/Badge.svelte';

/** From how many days before its end a secret is due. */
const DUE_DAYS = 30;

/** A secret or one of its versions. */
type Stateful = Pick<SecretInfo | SecretVersion, 'status' | 'expires_at'> & { purge_after?: string | null };

export type Status = { tone: Tone; text: string };

/** When it stops working; `infinity` is never. */
export function expiryOf({ expires_at }: Pick<Stateful, 'expires_at'>): string | null {
	return expires_at === 'infinity' ? null : expires_at;
}

const inDays = (days: number) => (days <= 1 ? 'within a day' : `in ${plural(days, 'day')}`);

export function statusOf(secret: Stateful, now: number): Status {
	const expires = expiryOf(secret);
	if (secret.status === 'deleted') {
		if (!secret.purge_after) return { tone: 'plain', text: 'Deleted' };
		const days = daysUntil(secret.purge_after, now);
		return { tone: 'plain', text: days > 0 ? `Deleted, ${plural(days, 'day')} left` : 'Deleted for good' };
	}
	if (secret.status === 'expired' || (expires && Date.parse(expires) <= now)) return { tone: 'bad', text: 'Expired' };
	if (expires) {
		const days = daysUntil(expires, now);
		if (days <= DUE_DAYS) return { tone: 'warn', text: `Expires ${inDays(days)}` };
	}
	return { tone: 'good', text: 'Enabled' };
}
