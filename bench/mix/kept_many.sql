-- 1 secret_get_many ok 8
\set p random(1, :projects)
SELECT * FROM meshhook_secrets.secret_get_many(md5('project' || :p)::uuid, ARRAY(SELECT 'SECRET_' || s FROM generate_series(1, 8) AS s), purpose => 'run');
