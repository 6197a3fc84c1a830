-- 4 secret_describe ok 1
\set p random(1, :projects)
\set u :p % :users
\set s random(1, :secrets)
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', json_build_object('role', 'authenticated', 'sub', md5('user' || :u)::uuid)::text, true);
SELECT * FROM meshhook_secrets.secret_describe(md5('project' || :p)::uuid, 'SECRET_' || :s);
END;
