-- 4 secret_get ok 1
-- With statements that stay prepared, outside of any transaction.
\set p random(1, :projects)
\set s random(1, :secrets)
SELECT meshhook_secrets.secret_get(md5('project' || :p)::uuid, 'SECRET_' || :s::integer, purpose => 'run');
