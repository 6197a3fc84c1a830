-- The server around us: what it loads, its workers, replicas, publications and connections.
WITH preloaded (position, name) AS (
  SELECT l.position, trim(both '" ' FROM l.name)
    -- pg_settings hides what the owner may not see; current_setting would raise an error.
    FROM regexp_split_to_table((SELECT s.setting FROM pg_settings s WHERE s.name = 'shared_preload_libraries'), ',') WITH ORDINALITY l (name, position)
), verified (finding, key, call) AS (VALUES
  ('kek_verify', 'last_kek_verify', 'SELECT * FROM meshhook_secrets.kek_verify(deep => true);'),
  ('audit_verify', 'last_audit_verify', 'SELECT * FROM meshhook_secrets.audit_verify();')
)
SELECT 'info' AS severity, 'preload_order' AS finding,
       format('Of shared_preload_libraries, %s comes after meshhook_secrets and sees statements and log lines before they are masked. Restart the server after the change.',
              string_agg(p.name, ', ' ORDER BY p.position)) AS detail,
       format('ALTER SYSTEM SET shared_preload_libraries = %s;',
              (SELECT string_agg(quote_literal(o.name), ', ' ORDER BY o.name = 'meshhook_secrets', o.position) FROM preloaded o)) AS remedy, NULL::oid AS object
  FROM preloaded p
  WHERE p.position > (SELECT max(o.position) FROM preloaded o WHERE o.name = 'meshhook_secrets')
  HAVING count(*) > 0
UNION ALL
SELECT 'warning', 'worker_slots', format('max_worker_processes is %s, of which parallel queries may take %s. Two workers of ours are always there, a third while there is work on keys, and an audit writer for each database in use: without it nothing is revealed. Restart the server after the change.', current_setting('max_worker_processes'), current_setting('max_parallel_workers')),
       format('ALTER SYSTEM SET max_worker_processes = %s;', current_setting('max_parallel_workers')::int + 8), NULL
  WHERE current_setting('max_worker_processes')::int < current_setting('max_parallel_workers')::int + 4
UNION ALL
SELECT 'warning', 'unencrypted_connections', format('The server listens on %s without TLS: values cross the network in the clear.', current_setting('listen_addresses')),
       E'ALTER SYSTEM SET ssl = on;\nSELECT pg_reload_conf();', NULL
  WHERE NOT current_setting('ssl')::boolean AND EXISTS (
    SELECT FROM regexp_split_to_table(current_setting('listen_addresses'), ',') a
    WHERE trim(a) NOT IN ('', 'localhost', '127.0.0.1', '::1'))
UNION ALL
SELECT 'warning', 'publication', format('Publication %I carries our tables: names and sealed values, which only a server with the same root key can open.', p.pubname),
       format('DROP PUBLICATION %I;', p.pubname) || coalesce(format(E'\nCREATE PUBLICATION %I FOR TABLE ', p.pubname) ||
         (SELECT string_agg(format('%I.%I', t.schemaname, t.tablename), ', ') || ';' FROM pg_publication_tables t
          WHERE t.pubname = p.pubname AND t.schemaname <> 'meshhook_secrets'), ''), p.oid
  FROM pg_publication p
  WHERE current_setting('wal_level') = 'logical'
    AND EXISTS (SELECT FROM pg_publication_tables t WHERE t.pubname = p.pubname AND t.schemaname = 'meshhook_secrets')
UNION ALL
SELECT 'warning', 'standby_lag', format('Standby %s is %s behind: what it shows, seals and audits is old.',
         coalesce(nullif(r.application_name, ''), r.pid::text), pg_size_pretty(r.behind)),
       '-- On the standby, if its replay is paused (SELECT pg_is_wal_replay_paused()); else look at its log.' || E'\nSELECT pg_wal_replay_resume();', NULL
  FROM (SELECT s.application_name, s.pid,
               CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_lsn(), s.replay_lsn) END AS behind
          FROM pg_stat_replication s) r
  WHERE r.behind > 64 * 1024 * 1024
UNION ALL
SELECT 'warning', v.finding, CASE WHEN s.at IS NULL THEN 'It was never run, or not since that is recorded.' ELSE format('It was last run on %s.', s.at::date) END, v.call, NULL
  FROM verified v LEFT JOIN (
    SELECT k.key, (k.value ->> 'at')::timestamptz AS at FROM meshhook_secrets.settings k
      WHERE k.value ->> 'at' ~ '^\d{4}-\d\d-\d\d[T ]\d\d:\d\d') s ON s.key = v.key
  WHERE (s.at IS NULL OR s.at < now() - interval '30 days')
    -- A new installation has nothing to verify yet.
    AND EXISTS (SELECT FROM meshhook_secrets.kek_storage k WHERE k.created_at < now() - interval '30 days')
    AND EXISTS (SELECT FROM pg_proc p WHERE p.pronamespace = 'meshhook_secrets'::regnamespace AND p.proname = v.finding)
UNION ALL
SELECT 'info', 'activity_visible', 'pg_stat_activity shows running statements, to superusers and pg_read_all_stats those of everybody. Ours are overwritten; what a host does with a value beside that is not.',
       E'ALTER SYSTEM SET track_activities = off;\nSELECT pg_reload_conf();', NULL
  WHERE current_setting('track_activities')::boolean
UNION ALL
SELECT 'info', 'temporary_files', 'A sort, hash or materialization of revealed values in a query of the caller''s own writes them to temporary files beyond work_mem; that cannot be seen from here.',
       '-- Reveal values in a query of their own, or as the last step, and do not sort or group by them.', NULL
UNION ALL
SELECT 'info', 'no_standby', 'No standby is connected: between two backups this server has the only copy.',
       '-- Set up streaming replication, with the library and the same root key there, and archive the WAL.', NULL
  WHERE NOT pg_is_in_recovery() AND pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
    AND NOT EXISTS (SELECT FROM pg_stat_replication s WHERE s.state = 'streaming')
UNION ALL
SELECT 'info', 'limited_view', format('The owner of the extension, %s, is no superuser: hidden settings and standbys cannot be checked.', quote_ident(current_user)),
       format('GRANT pg_monitor TO %I;', current_user), current_user::regrole::oid
  WHERE NOT (pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') AND pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'))
UNION ALL
SELECT 'info', 'standby', 'This server is a standby: what depends on writing is checked on the primary only.',
       '-- Run meshhook_secrets.doctor() on the primary too.', NULL
  WHERE pg_is_in_recovery()
UNION ALL
SELECT 'info', 'subscription', 'A subscription keeps keys and secrets of this database: they are changed, and rotated, on the publisher only.',
       '-- Run meshhook_secrets.doctor() on the publisher too.', NULL
  WHERE EXISTS (SELECT FROM pg_subscription_rel s JOIN pg_class c ON c.oid = s.srrelid WHERE c.relnamespace = 'meshhook_secrets'::regnamespace
      AND c.relname IN ('kek_storage', 'data_keys', 'project_secrets', 'secret_versions'))
UNION ALL
SELECT 'info', 'backup', 'Whether there are backups, and whether they can be restored, cannot be seen from here. A backup of the database holds every secret, sealed, and is worth nothing without the root key.',
       '-- Keep the root key, with its previous lines as long as backups from their time are kept, in another place than the backups, and restore one now and then.', NULL
