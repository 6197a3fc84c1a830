-- 6 secret_get_many ok 3
\set p random(1, :projects)
BEGIN;
SELECT set_config('role', 'service_role', true), set_config('request.jwt.claims', '{"role": "service_role"}', true);
SELECT * FROM meshhook_secrets.secret_get_many(md5('project' || :p)::uuid, ARRAY['SECRET_1', 'SECRET_3', 'SECRET_5'], purpose => 'run');
END;
