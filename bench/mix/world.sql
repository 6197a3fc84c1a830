-- The projects, their users and secrets, and what the load's clients call or write to.
CREATE SCHEMA bench;
GRANT USAGE ON SCHEMA bench TO authenticated, service_role, authenticator;

INSERT INTO projects (id, owner, name)
  SELECT md5('project' || p)::uuid, md5('user' || p % :users)::uuid, 'Project ' || p FROM generate_series(1, :projects) AS p;
SELECT format(
    $$SELECT count(meshhook_secrets.secret_put(md5('project' || p)::uuid, 'SECRET_' || s, repeat(md5(p || ' ' || s), 4))),
             count(meshhook_secrets.secret_put(md5('project' || p)::uuid, 'TOGGLED', 'x')) FILTER (WHERE s = 1),
             count(meshhook_secrets.secret_put(md5('project' || p)::uuid, 'EXPIRED', 'x', expires_at => clock_timestamp() + interval '1 second')) FILTER (WHERE s = 1)
        FROM generate_series(%s, %s) AS p, generate_series(1, %s) AS s$$, first, least(first + 99, :projects), :secrets)
  FROM generate_series(1, :projects, 100) AS first \gexec

-- Reveals what must not be revealed. pgbench would give up at the first error, so it is caught here; any other
-- than the expected one goes on to pgbench.
CREATE FUNCTION bench.refused(project uuid, name text, expected text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  BEGIN
    PERFORM meshhook_secrets.secret_get(project, name);
  EXCEPTION WHEN OTHERS THEN
    IF SQLSTATE = expected THEN RETURN; END IF;
    RAISE;
  END;
  RAISE EXCEPTION '% was revealed instead of refused with %', name, expected;
END
$$;

-- A login of its own for those that get errors, so that their records are not counted with others' repeats.
CREATE ROLE refused LOGIN NOINHERIT IN ROLE authenticated, anon;
GRANT USAGE ON SCHEMA meshhook_secrets TO anon;
CREATE ROLE service LOGIN BYPASSRLS IN ROLE service_role;
GRANT USAGE ON SCHEMA meshhook_secrets TO service;
CREATE ROLE agent LOGIN BYPASSRLS IN ROLE meshhook_secrets_auditor;
CREATE ROLE keeper LOGIN BYPASSRLS IN ROLE meshhook_secrets_kek_admin;

-- What is sampled. `at`: seconds since the load began.
CREATE TABLE bench.started AS SELECT now() AS at, 0 AS seconds WITH NO DATA;
CREATE UNLOGGED TABLE bench.memory (at float, pid integer, total bigint, used bigint);
CREATE UNLOGGED TABLE bench.tables (at float, name text, size bigint, dead bigint);
CREATE UNLOGGED TABLE bench.servers (at float, lsn pg_lsn, wal_files bigint, queue float, lost float);
CREATE UNLOGGED TABLE bench.processes (at float, pid integer, kind text, anon bigint, pss bigint, shared bigint, files integer);
CREATE UNLOGGED TABLE bench.done (script text, transactions bigint, actions text, outcome text, records integer);
CREATE UNLOGGED TABLE bench.latencies (script text, ms float, lag float, ended float);
CREATE UNLOGGED TABLE bench.snapshots (phase text, first bigint, last bigint, first_ms float, last_ms float, seals bigint, head bigint);
CREATE UNLOGGED TABLE bench.verdict (place serial, good boolean, what text, seen text, bound text);

CREATE FUNCTION bench.elapsed() RETURNS float LANGUAGE sql STABLE
  AS $$SELECT extract(epoch FROM clock_timestamp() - at) FROM bench.started$$;

CREATE FUNCTION bench.look_at_memory() RETURNS void LANGUAGE sql SECURITY DEFINER AS $$
  INSERT INTO bench.memory SELECT bench.elapsed(), pg_backend_pid(), sum(total_bytes), sum(used_bytes) FROM pg_backend_memory_contexts
$$;

-- Samples what SQL can see; answers the processes that are to be looked at from outside.
CREATE FUNCTION bench.sample() RETURNS TABLE (pid integer, kind text) LANGUAGE sql AS $$
  INSERT INTO bench.tables
    SELECT bench.elapsed(), relname, pg_total_relation_size(relid), n_dead_tup FROM pg_stat_user_tables WHERE schemaname = 'meshhook_secrets';
  INSERT INTO bench.servers
    SELECT bench.elapsed(), pg_current_wal_insert_lsn(), (SELECT sum(size) FROM pg_ls_waldir()),
           max(value) FILTER (WHERE name = 'meshhook_secrets_audit_queue_records'), max(value) FILTER (WHERE name = 'meshhook_secrets_audit_records_lost_total')
      FROM meshhook_secrets.metrics();
  SELECT pid, CASE WHEN usename IN ('authenticator', 'service', 'refused') THEN 'pooled' ELSE backend_type END FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND (backend_type <> 'client backend' OR usename IN ('authenticator', 'service', 'refused', 'agent'));
$$;

VACUUM ANALYZE;
CHECKPOINT;
