-- How things are: for probes, exporters and people. None of these reads a secret or changes anything.

CREATE FUNCTION meshhook_secrets.health() RETURNS TABLE (state text, cause text, since timestamptz)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_health';
REVOKE ALL ON FUNCTION meshhook_secrets.health() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.health() TO meshhook_secrets_auditor, meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.health() IS
  'One row: state is ok, degraded or sealed, cause the worst reason (NULL if ok), since when it is so (NULL if that is not recorded). Works while sealed and on a standby. Errors: 55000 not preloaded.';

CREATE FUNCTION meshhook_secrets.metrics() RETURNS TABLE (name text, kind text, labels jsonb, value double precision, help text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_metrics';
REVOKE ALL ON FUNCTION meshhook_secrets.metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.metrics() TO meshhook_secrets_auditor, meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.metrics() IS
  'Counters (of this database, since server start) and gauges, named as Prometheus wants them; value is NULL where there is nothing to measure, for example the time of the last rotation when there was none. Errors: 55000 not preloaded.';

CREATE FUNCTION meshhook_secrets.doctor() RETURNS TABLE (severity text, finding text, detail text, remedy text)
  LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_doctor';
REVOKE ALL ON FUNCTION meshhook_secrets.doctor() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.doctor() TO meshhook_secrets_auditor, meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.doctor() IS
  'Looks for what endangers the secrets: log settings, grants, changed tables and triggers, keys, files, replicas, workers. severity is critical, warning or info, worst first; remedy says what to run, one SQL statement or configuration line a line. info also says what cannot be checked from here, so there is always an answer. Errors: 55000 not preloaded.';
