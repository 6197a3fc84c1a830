-- Calls that are refused, and told so as any client is.
SET ROLE authenticated;
SELECT set_config('request.jwt.claims', json_build_object('role', 'authenticated', 'sub', md5('user1')::uuid)::text, false) \g /dev/null
SELECT * FROM meshhook_secrets.secret_describe(md5('project1')::uuid, 'MISSING');
SELECT * FROM meshhook_secrets.secret_list(md5('project2')::uuid);
SELECT * FROM meshhook_secrets.secret_put(md5('project1')::uuid, 'TOO_LARGE', repeat('x', 65537));
SELECT * FROM meshhook_secrets.secret_put(md5('project1')::uuid, 'SECRET_1', 'x', cas => 1000000);
SELECT * FROM meshhook_secrets.secret_put(md5('project1')::uuid, 'no name', 'x');
SET ROLE anon;
SELECT * FROM meshhook_secrets.secret_versions(md5('project1')::uuid, 'SECRET_1');
