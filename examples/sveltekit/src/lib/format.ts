// How times, numbers and database words read.

const LOCALE = 'en-GB';
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const relative = new Intl.RelativeTimeFormat('en', { numeric: 'auto' });
const number = new Intl.NumberFormat('en');

/** "5 minutes ago", "in 3 days". */
export function relativeTime(time: string, now: number): string {
	const ms = Date.parse(time) - now;
	const size = Math.abs(ms);
	if (size < 45_000) return 'just now';
	if (size < HOUR) return relative.format(Math.round(ms / MINUTE), 'minute');
	if (size < DAY) return relative.format(Math.round(ms / HOUR), 'hour');
	if (size < 45 * DAY) return relative.format(Math.round(ms / DAY), 'day');
	if (size < 700 * DAY) return relative.format(Math.round(ms / (30.4 * DAY)), 'month');
	return relative.format(Math.round(ms / (365 * DAY)), 'year');
}

/** "22 Nov 2026, 20:07:31 UTC", in the reader's time zone. */
export function exactTime(time: string): string {
	const moment = new Date(time);
	if (Number.isNaN(moment.getTime())) return time; // a year of five digits
	return moment.toLocaleString(LOCALE, {
		day: 'numeric', month: 'short', year: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit',
		timeZoneName: 'short',
	});
}

/** "22 Nov, 20:07:31". */
export const shortTime = (time: string) =>
	new Date(time).toLocaleString(LOCALE, {
		day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit', second: '2-digit',
	});

/** "22 Nov 2026". */
export const date = (time: string) =>
	new Date(time).toLocaleDateString(LOCALE, { day: 'numeric', month: 'short', year: 'numeric' });

/** Whole days from now until then, begun ones included. */
export const daysUntil = (time: string, now: number) => Math.ceil((Date.parse(time) - now) / DAY);

export const count = (value: number) => number.format(value);

/** "1 secret", "3 secrets". */
export const plural = (value: number, one: string, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;

/** "about 40 seconds". */
export function duration(ms: number): string {
	if (ms < 1500) return 'a moment';
	if (ms < 90_000) return `about ${plural(Math.round(ms / 1000), 'second')}`;
	if (ms < 90 * MINUTE) return `about ${plural(Math.round(ms / MINUTE), 'minute')}`;
	return `about ${plural(Math.round(ms / HOUR), 'hour')}`;
}

/** "destroy_scheduled" as "destroy scheduled". */
export const words = (name: string) => name.replaceAll('_', ' ');

/** The last that a `datetime-local` field takes: later years have five digits, which JavaScript does not read. */
export const LATEST_INPUT = '9999-12-31T23:59';

/** What a `datetime-local` field holds for this time, and back; both in the reader's time zone. */
export function toLocalInput(time: string | null): string {
	if (!time) return '';
	const moment = new Date(time);
	if (!(moment.getTime() < Date.parse(LATEST_INPUT))) return LATEST_INPUT;
	return new Date(moment.getTime() - moment.getTimezoneOffset() * MINUTE).toISOString().slice(0, 16);
}

export function fromLocalInput(value: string): string | undefined {
	const moment = new Date(value);
	return Number.isNaN(moment.getTime()) ? undefined : moment.toISOString();
}
