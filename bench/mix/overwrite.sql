-- 6 secret_put ok 1
\set p random(1, :projects)
\set u :p % :users
\set s random(1, :secrets)
\set value random(1, 1000000000)
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', json_build_object('role', 'authenticated', 'sub', md5('user' || :u)::uuid)::text, true);
SELECT * FROM meshhook_secrets.secret_put(md5('project' || :p)::uuid, 'SECRET_' || :s, repeat(md5(:value::text), 4), previous_valid_for => '1 hour');
END;
