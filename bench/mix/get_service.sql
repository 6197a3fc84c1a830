-- 32 secret_get ok 1
\set p random(1, :projects)
\set s random(1, :secrets)
BEGIN;
SELECT set_config('role', 'service_role', true), set_config('request.jwt.claims', '{"role": "service_role"}', true);
SELECT meshhook_secrets.secret_get(md5('project' || :p)::uuid, 'SECRET_' || :s, purpose => 'run');
END;
