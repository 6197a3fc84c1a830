-- 1 secret_delete,secret_undelete ok 1
-- Each client deletes, and undeletes, a secret of its own.
\set p 1 + :client_id
BEGIN;
SELECT set_config('role', 'service_role', true), set_config('request.jwt.claims', '{"role": "service_role"}', true);
SELECT * FROM meshhook_secrets.secret_delete(md5('project' || :p)::uuid, 'TOGGLED');
SELECT * FROM meshhook_secrets.secret_undelete(md5('project' || :p)::uuid, 'TOGGLED');
END;
