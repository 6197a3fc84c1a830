\echo Use "CREATE EXTENSION meshhook_secrets" to load this file. \quit

-- What must be true before anything is created.
DO $guard$
BEGIN
  -- Values are sealed as UTF-8, and a dump may be restored into any other database.
  IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' THEN
    RAISE EXCEPTION 'meshhook_secrets needs a database with encoding UTF8'
      USING ERRCODE = '0A000', HINT = 'CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
  END IF;
  -- Whoever owns the schema could plant functions in it.
  IF (SELECT n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname OPERATOR(pg_catalog.=) 'meshhook_secrets')
     OPERATOR(pg_catalog.<>)
     (SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolname OPERATOR(pg_catalog.=) CURRENT_USER) THEN
    RAISE EXCEPTION 'schema meshhook_secrets belongs to another role'
      USING ERRCODE = '42501', HINT = 'Drop or rename that schema, then try again.';
  END IF;
END
$guard$;
