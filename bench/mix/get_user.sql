-- 30 secret_get ok 1
-- What PostgREST makes of a signed-in user's call: the role and the claims for one transaction.
\set p random(1, :projects)
\set u :p % :users
\set s random(1, :secrets)
BEGIN;
SELECT set_config('role', 'authenticated', true), set_config('request.jwt.claims', json_build_object('role', 'authenticated', 'sub', md5('user' || :u)::uuid)::text, true);
SELECT meshhook_secrets.secret_get(md5('project' || :p)::uuid, 'SECRET_' || :s, purpose => 'show');
END;
