-- 1 secret_versions ok 1
\set p random(1, :projects)
\set s random(1, :secrets)
BEGIN;
SELECT set_config('role', 'service_role', true), set_config('request.jwt.claims', '{"role": "service_role"}', true);
SELECT * FROM meshhook_secrets.secret_versions(md5('project' || :p)::uuid, 'SECRET_' || :s);
END;
