-- What the samples say. Growth is what processes have in the last tenth of the load beside what the same ones had
-- in the third tenth (of ten minutes: the third, by when caches and plans are filled).
CREATE FUNCTION bench.judge(good boolean, what text, seen text, bound text) RETURNS void LANGUAGE sql
  AS $$INSERT INTO bench.verdict (good, what, seen, bound) VALUES (coalesce(good, false), what, coalesce(seen, 'nothing'), bound)$$;
CREATE FUNCTION bench.window(moment float) RETURNS text LANGUAGE sql STABLE
  AS $$SELECT CASE WHEN moment / seconds BETWEEN 0.2 AND 0.3 THEN 'first' WHEN moment / seconds > 0.9 THEN 'last' END FROM bench.started$$;

-- --- errors -------------------------------------------------------------------------------------------------
SELECT bench.judge(:broken = 0, 'clients that ended early', :'broken' || ' lines', 'none');
SELECT bench.judge(:server = 0, 'server log: unexpected lines', :'server', 'none');
SELECT bench.judge(:pooler = 0, 'pgbouncer log: unexpected lines', :'pooler', 'none');
SELECT bench.judge(:'refused' = '22023 42501 PT404 PT409 PT413', 'errors that clients saw', :'refused', 'the provoked ones');
SELECT bench.judge(:'monitor' = 'ok', 'health() all the time', :'monitor', 'ok');

-- --- the audit log -------------------------------------------------------------------------------------------
WITH expected AS (
  SELECT action, outcome, sum(transactions * records) AS calls
    FROM bench.done, unnest(string_to_array(actions, ',')) AS action WHERE records > 0 GROUP BY 1, 2
), recorded AS (
  SELECT action, outcome, sum(times) AS records FROM meshhook_secrets.audit_log
    WHERE "time" >= (SELECT at FROM bench.started) AND action ~ '^secret_' AND action <> 'secret_reencrypt' GROUP BY 1, 2
)
SELECT bench.judge(calls = records, 'records of ' || action || ', ' || outcome, coalesce(records, 0)::text, coalesce(calls, 0) || ' calls')
  FROM expected FULL JOIN recorded USING (action, outcome) ORDER BY action, outcome;
SELECT bench.judge(ok, 'audit_verify()', seals || ' seals, ' || records || ' records ' || array_to_string(problems, ', '), 'ok')
  FROM meshhook_secrets.audit_verify();
SELECT bench.judge(max(lost) = 0, 'records lost', max(lost)::text, '0') FROM bench.servers;

-- --- memory ----------------------------------------------------------------------------------------------------
CREATE VIEW bench.grown AS
  SELECT pid, kind, max(was.anon) AS anon, now.anon - was.anon AS more_anon, now.shared - was.shared AS more_shared, now.files - was.files AS more_files
    FROM (SELECT pid, kind, percentile_disc(0.5) WITHIN GROUP (ORDER BY anon) AS anon, max(shared) AS shared, max(files) AS files
            FROM bench.processes WHERE bench.window(at) = 'first' GROUP BY 1, 2) AS was
    JOIN (SELECT pid, percentile_disc(0.5) WITHIN GROUP (ORDER BY anon) AS anon, max(shared) AS shared, max(files) AS files
            FROM bench.processes WHERE bench.window(at) = 'last' GROUP BY 1) AS now USING (pid)
    GROUP BY pid, kind, now.anon, was.anon, now.shared, was.shared, now.files, was.files;
SELECT bench.judge(count(*) = 40 AND count(*) = (SELECT count(DISTINCT pid) FROM bench.processes WHERE kind = 'pooled'),
    'backends of the pool that lived all the time', count(*)::text, '40') FROM bench.grown WHERE kind = 'pooled';
SELECT bench.judge(percentile_disc(0.5) WITHIN GROUP (ORDER BY more_anon) <= 256 AND max(more_anon) <= 1024, 'growth of a pooled backend (RssAnon)',
    format('median %s kB, most %s kB, of %s kB', percentile_disc(0.5) WITHIN GROUP (ORDER BY more_anon), max(more_anon), percentile_disc(0.5) WITHIN GROUP (ORDER BY anon)),
    'median 256 kB, most 1024 kB') FROM bench.grown WHERE kind = 'pooled';
SELECT bench.judge(max(more_anon) <= 1024, 'growth of ' || kind, format('%s kB, of %s kB', max(more_anon), max(anon)), '1024 kB')
  FROM bench.grown WHERE kind <> 'pooled' GROUP BY kind ORDER BY kind;
WITH contexts AS (
  SELECT pid, avg(total) FILTER (WHERE bench.window(at) = 'first') AS was, avg(total) FILTER (WHERE bench.window(at) = 'last') AS now
    FROM bench.memory GROUP BY pid
)
SELECT bench.judge(percentile_disc(0.5) WITHIN GROUP (ORDER BY now - was) <= 65536, 'growth of its memory contexts',
    format('median %s kB, most %s kB, of %s kB', round(percentile_disc(0.5) WITHIN GROUP (ORDER BY now - was) / 1024), round(max(now - was) / 1024), round(percentile_disc(0.5) WITHIN GROUP (ORDER BY was) / 1024)),
    'median 64 kB') FROM contexts WHERE now IS NOT NULL AND was IS NOT NULL;
-- Shared memory counts in parts, so these add up to what the server as a whole has in memory: the growth is its buffers'.
SELECT bench.judge(true, 'memory of all processes (Pss)', string_agg(pg_size_pretty(pss * 1024), ', then ' ORDER BY part), 'for information')
  FROM (SELECT part, percentile_disc(0.5) WITHIN GROUP (ORDER BY pss)::bigint AS pss
          FROM (SELECT bench.window(at) AS part, sum(pss) AS pss FROM bench.processes GROUP BY at) AS s WHERE part IS NOT NULL GROUP BY part) AS parts;
SELECT bench.judge(max(more_shared) <= 0, 'growth of shared mappings', max(more_shared) || ' kB', '0 kB') FROM bench.grown WHERE kind = 'pooled';
SELECT bench.judge(max(more_files) <= 16, 'more open files in a backend', max(more_files)::text, '16') FROM bench.grown;

-- --- disk -------------------------------------------------------------------------------------------------------
SELECT bench.judge(max(wal_files) <= 2 * pg_size_bytes(current_setting('max_wal_size')), 'pg_wal', pg_size_pretty(max(wal_files)), 'twice max_wal_size')
  FROM bench.servers;
SELECT bench.judge((max(lsn) - min(lsn)) / transactions <= 16384, 'WAL', pg_size_pretty(max(lsn) - min(lsn)) || ', '
    || round((max(lsn) - min(lsn)) / transactions) || ' bytes a transaction', '16 kB a transaction')
  FROM bench.servers, (SELECT sum(transactions) AS transactions FROM bench.done) AS done GROUP BY transactions;
-- Tables whose rows are changed again and again, or stay for a moment.
SELECT bench.judge(max(size) <= bound * 1024, name, format('%s kB at most, %s kB at the end, %s dead rows at most', max(size) / 1024,
    (array_agg(size ORDER BY at DESC))[1] / 1024, max(dead)), bound || ' kB')
  FROM bench.tables JOIN (VALUES ('audit_head', 512), ('audit_pending', 8192), ('rotation_jobs', 256), ('settings', 128), ('kek_storage', 256),
                                 ('data_keys', 4096)) AS bounds (name, bound) USING (name) GROUP BY name, bound ORDER BY name;

-- --- latencies ----------------------------------------------------------------------------------------------------
CREATE VIEW bench.slow AS
  SELECT CASE WHEN script ~ 'get' THEN 'reveals' WHEN script IN ('overwrite', 'new', 'generate', 'toggle') THEN 'changes' ELSE 'others' END AS kind,
         EXISTS (SELECT FROM meshhook_secrets.rotation_jobs WHERE to_timestamp(ended) BETWEEN started_at AND finished_at) AS rotating, ms, lag
    FROM bench.latencies;
