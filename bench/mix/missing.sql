-- 3 secret_get not_found 1
\set p random(1, :projects)
\set u :p % :users
\set s random(1, :secrets)
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', json_build_object('role', 'authenticated', 'sub', md5('user' || :u)::uuid)::text, true);
SELECT bench.refused(md5('project' || :p)::uuid, 'MISSING_' || :s, 'PT404');
END;
