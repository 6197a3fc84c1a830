// What the database says about the extension's functions.

import type { Stack } from '../../demo/web/stack.ts';

export interface Column {
	name: string;
	/** As PostgreSQL calls it: `timestamp with time zone`. */
	type: string;
}

export interface Routine {
	name: string;
	arguments: (Column & { optional: boolean })[];
	/** The type of the result; of no use where there are columns. */
	result: string;
	/** Of a TABLE or a composite, else empty. */
	columns: Column[];
	/** Whether it returns any number of rows. */
	many: boolean;
	/** Whether one of the extension's roles may call it. */
	callable: boolean;
}

/** All functions in the schema meshhook_secrets, by name. */
export async function readCatalog(stack: Stack): Promise<Map<string, Routine>> {
	const routines: Routine[] = await rows(stack, `
		SELECT p.proname AS name, p.prorettype::regtype::text AS result, p.proretset AS many,
			(SELECT coalesce(jsonb_agg(jsonb_build_object('name', a.name, 'type', a.type::regtype::text,
					'optional', a.place > p.pronargs - p.pronargdefaults) ORDER BY a.place), '[]')
				FROM unnest(p.proargnames[1:p.pronargs], p.proargtypes::oid[]) WITH ORDINALITY AS a(name, type, place)
			) AS arguments,
			coalesce(
				(SELECT jsonb_agg(jsonb_build_object('name', a.name, 'type', a.type::regtype::text) ORDER BY a.place)
					FROM unnest(p.proargnames, p.proallargtypes, p.proargmodes) WITH ORDINALITY AS a(name, type, mode, place)
					WHERE a.mode = 't'),
				(SELECT jsonb_agg(jsonb_build_object('name', a.attname, 'type', a.atttypid::regtype::text) ORDER BY a.attnum)
					FROM pg_type t JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
					WHERE t.oid = p.prorettype),
				'[]') AS columns,
			(SELECT bool_or(has_function_privilege(r.oid, p.oid, 'EXECUTE')) FROM pg_roles r
				WHERE r.rolname LIKE 'meshhook\\_secrets\\_%') AS callable
		FROM pg_proc p WHERE p.pronamespace = 'meshhook_secrets'::regnamespace ORDER BY p.proname`);
	return new Map(routines.map((routine) => [routine.name, routine]));
}

/** The columns of project_secrets that a writer may read. */
export const readableColumns = (stack: Stack): Promise<Column[]> => rows(stack, `
	SELECT attname AS name, atttypid::regtype::text AS type FROM pg_attribute
	WHERE attrelid = 'meshhook_secrets.project_secrets'::regclass AND attnum > 0 AND NOT attisdropped
		AND has_column_privilege('meshhook_secrets_writer', attrelid, attnum, 'SELECT')
	ORDER BY attnum`);

async function rows<Row>(stack: Stack, query: string): Promise<Row[]> {
	return JSON.parse(await stack.sql(`SELECT jsonb_agg(to_jsonb(q)) FROM (${query}) q`));
}
