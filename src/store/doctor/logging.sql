-- Settings by which values could reach the server log, and others that must not be as they are.
WITH rule (severity, finding, setting, bad, safe, needs, why) AS (VALUES
  ('critical', 'debug_print', 'debug_print_parse', '^(on|true|yes|1)$', 'off', NULL,
   'Parse trees are logged with every literal, as bytes that no redaction finds.'),
  ('critical', 'debug_print', 'debug_print_rewritten', '^(on|true|yes|1)$', 'off', NULL,
   'Rewritten trees are logged with every literal, as bytes that no redaction finds.'),
  ('critical', 'debug_print', 'debug_print_plan', '^(on|true|yes|1)$', 'off', NULL,
   'Plans are logged with every literal and parameter, as bytes that no redaction finds.'),
  ('warning', 'log_min_messages', 'log_min_messages', '^(log|fatal|panic)$', 'warning', NULL,
   'Errors are not logged: refusals at the function grant are not seen then, and a standby has nowhere to write its audit records.'),
  ('warning', 'log_parameters_on_error', 'log_parameter_max_length_on_error', '^(-|[1-9])', '0', NULL,
   'Parameters of failing statements are logged. Those of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('info', 'log_statement', 'log_statement', '^(all|mod)$', 'none', NULL,
   'Statements are logged. Literals of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('info', 'log_duration', 'log_min_duration_statement', '^[0-9]', '-1', NULL,
   'Slow statements are logged. Literals of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('info', 'log_duration', 'log_min_duration_sample', '^[0-9]', '-1', NULL,
   'A sample of slow statements is logged. Literals of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('info', 'log_duration', 'log_transaction_sample_rate', '[1-9]', '0', NULL,
   'A sample of transactions is logged. Literals of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('info', 'log_parameters', 'log_parameter_max_length', '^(-|[1-9])', '0', 'log_',
   'Parameters are logged with the statements. Those of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('info', 'log_error_statement', 'log_min_error_statement', '^(debug|info|notice|warning|error)', 'log', NULL,
   'Failing statements are logged. Literals of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('info', 'auto_explain', 'auto_explain.log_min_duration', '^[0-9]', '-1', NULL,
   'Plans are logged with their statements. Literals of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('warning', 'auto_explain_nested', 'auto_explain.log_nested_statements', '^(on|true|yes|1)$', 'off', 'auto_explain',
   'Statements inside functions are logged: what a function of the host does with a value before and after it calls us is not masked.'),
  ('warning', 'auto_explain_parameters', 'auto_explain.log_parameter_max_length', '^(-|[1-9])', '0', 'auto_explain',
   'Parameters are logged with the plans. Those of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('warning', 'pgaudit_parameters', 'pgaudit.log_parameter', '^(on|true|yes|1)$', 'off', NULL,
   'Parameters are logged. Those of our functions and of meshhook_secrets.value_functions are masked, others are not.'),
  ('info', 'statement_statistics', 'pg_stat_statements.track_utility', '^(on|true|yes|1)$', 'off', NULL,
   'Utility statements (DO, COPY, EXPLAIN) are kept with their literals. Those that mention our functions are left out, others are not.'),
  ('critical', 'fsync', 'fsync', '^(off|false|no|0)$', 'on', NULL,
   'A crash of the host may destroy the database, and with it the data keys.'),
  ('critical', 'full_page_writes', 'full_page_writes', '^(off|false|no|0)$', 'on', NULL,
   'A crash of the host may leave torn pages, which do not authenticate.'),
  ('warning', 'synchronous_commit', 'synchronous_commit', '^(off|false|no|0)$', 'on', NULL,
   'A crash of the host may lose the last secrets and audit records although they were acknowledged.')
), found AS (
  -- The server as a whole.
  SELECT r.*, s.setting AS value, 'In the server''s configuration ' AS place,
         format(E'ALTER SYSTEM SET %s = %L;\nSELECT pg_reload_conf();', r.setting, r.safe) AS remedy, NULL::oid AS object
    FROM rule r JOIN pg_settings s ON s.name = r.setting
    WHERE s.source NOT IN ('database', 'user', 'database user', 'client', 'session', 'global')
  UNION ALL
  -- This database, and roles.
  SELECT r.*, split.value,
         format('Of %s ', coalesce(nullif(concat_ws(' in ', 'role ' || quote_ident(o.rolname), 'database ' || quote_ident(d.datname)), ''), 'all roles')),
         CASE WHEN o.rolname IS NULL AND d.datname IS NULL THEN format('ALTER ROLE ALL RESET %s;', r.setting)
              WHEN o.rolname IS NULL THEN format('ALTER DATABASE %I RESET %s;', d.datname, r.setting)
              ELSE format('ALTER ROLE %I%s RESET %s;', o.rolname, ' IN DATABASE ' || quote_ident(d.datname), r.setting) END,
         coalesce(o.oid, d.oid)
    FROM pg_db_role_setting x
    LEFT JOIN pg_database d ON d.oid = x.setdatabase LEFT JOIN pg_roles o ON o.oid = x.setrole,
    unnest(x.setconfig) c (config),
    LATERAL (SELECT split_part(c.config, '=', 1), substr(c.config, strpos(c.config, '=') + 1)) split (name, value)
    JOIN rule r ON r.setting = lower(split.name)
    WHERE x.setdatabase IN (0, (SELECT m.oid FROM pg_database m WHERE m.datname = current_database()))
)
SELECT f.severity, f.finding, format('%s%s is %s. %s', f.place, f.setting, f.value, f.why), f.remedy, f.object
  FROM found f
  WHERE lower(f.value) ~ f.bad
    AND (f.needs IS NULL OR EXISTS (
      SELECT FROM found n WHERE lower(n.value) ~ n.bad AND n.finding <> f.finding
        AND CASE f.needs WHEN 'log_' THEN n.finding IN ('log_statement', 'log_duration') ELSE n.finding = f.needs END))
