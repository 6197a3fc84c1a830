-- 5 secret_list ok 1
\set p random(1, :projects)
\set u :p % :users
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', json_build_object('role', 'authenticated', 'sub', md5('user' || :u)::uuid)::text, true);
SELECT * FROM meshhook_secrets.secret_list(md5('project' || :p)::uuid, page_size => 20);
END;
