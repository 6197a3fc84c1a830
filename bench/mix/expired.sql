-- 2 secret_get not_found 1
-- Expired while the load was prepared.
\set p random(1, :projects)
BEGIN;
SELECT set_config('role', 'service_role', true), set_config('request.jwt.claims', '{"role": "service_role"}', true);
SELECT bench.refused(md5('project' || :p)::uuid, 'EXPIRED', 'PT410');
END;
