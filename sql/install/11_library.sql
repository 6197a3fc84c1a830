-- The library that the server runs must know all of these functions. After the package was upgraded, the server
-- runs the old library until it is restarted, and one of 0.1.0 lacks even this function.
DO $library$
DECLARE
  needed text;
BEGIN
  SELECT e.extversion INTO needed FROM pg_catalog.pg_extension e WHERE e.extname OPERATOR(pg_catalog.=) 'meshhook_secrets';
  BEGIN
    CREATE FUNCTION meshhook_secrets.library_version() RETURNS text
      LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'meshhook_secrets_library_version';
    IF pg_catalog.string_to_array(meshhook_secrets.library_version(), '.')::integer[]
        OPERATOR(pg_catalog.>=) pg_catalog.string_to_array(needed, '.')::integer[] THEN
      RETURN;
    END IF;
  EXCEPTION WHEN undefined_function THEN
    NULL; -- no such symbol in the library
  END;
  RAISE EXCEPTION 'the server runs an older library of meshhook_secrets' USING ERRCODE = '55000',
    DETAIL = pg_catalog.format('Version %s of the library or later is needed. Nothing has been changed.', needed),
    HINT = 'Restart the server: it then loads the library that is installed. If that does not help, install the package again.';
END
$library$;
REVOKE ALL ON FUNCTION meshhook_secrets.library_version() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION meshhook_secrets.library_version() TO meshhook_secrets_auditor, meshhook_secrets_kek_admin;
COMMENT ON FUNCTION meshhook_secrets.library_version() IS
  'The version of the library that the server runs. doctor() compares it with those of the database''s functions and of the installed package. Works without preloading.';

