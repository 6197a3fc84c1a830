// The people of the demo. demo/host.sql and seed.sql give them projects.

export interface Account {
	id: string;
	email: string;
	name: string;
	does: string;
}

export const PASSWORD = 'demo';

export const ACCOUNTS: Account[] = [
	{ id: 'a11ce000-0000-4000-8000-000000000001', email: 'alice@demo.test', name: 'Alice', does: 'owns a shop and a newsletter' },
	{ id: 'b0b00000-0000-4000-8000-000000000002', email: 'bob@demo.test', name: 'Bob', does: 'owns a blog' },
	{ id: '01a0a000-0000-4000-8000-000000000003', email: 'olga@demo.test', name: 'Olga', does: 'operator: keys and audit log, no secrets' },
];
