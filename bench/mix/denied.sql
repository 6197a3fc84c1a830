-- 3 secret_get denied 1
-- Somebody else's project.
\set p random(1, :projects)
\set v (:p + 1) % :users
\set s random(1, :secrets)
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', json_build_object('role', 'authenticated', 'sub', md5('user' || :v)::uuid)::text, true);
SELECT bench.refused(md5('project' || :p)::uuid, 'SECRET_' || :s, '42501');
END;
