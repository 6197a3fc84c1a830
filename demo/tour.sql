-- The walk-through of `make demo`. A statement that is refused on purpose is checked by refused.sql.
\set VERBOSITY default
\pset border 1
\pset footer off
\pset null '-'
\set alice '{"sub": "a11ce000-0000-4000-8000-000000000001", "role": "authenticated"}'
\set bob '{"sub": "b0b00000-0000-4000-8000-000000000002", "role": "authenticated"}'
\set shop '5709e000-0000-4000-8000-000000000001'
\set blog 'b106e000-0000-4000-8000-000000000002'
\c - authenticator
\set ECHO queries

\echo
\echo '--- 1. Alice and Bob store secrets, each in a project of their own'
SET ROLE authenticated;
SET request.jwt.claims = :'alice';
SELECT name, version FROM meshhook_secrets.secret_put(:'shop', 'STRIPE_KEY', 'sk_live_alice', description => 'Payments');
SELECT name, version FROM meshhook_secrets.secret_generate(:'shop', 'WEBHOOK_SECRET', length => 40);
SET request.jwt.claims = :'bob';
SELECT name, version FROM meshhook_secrets.secret_put(:'blog', 'SMTP_PASSWORD', 'bobs-password');

\echo
\echo '--- 2. Alice sees her secrets, without values; to reveal is a right of its own'
SET request.jwt.claims = :'alice';
SELECT name, description, version, status, created_by FROM meshhook_secrets.secret_list(:'shop');
\set ON_ERROR_STOP off
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY');
\set ECHO none
\set expected 42501
\ir refused.sql

\echo
\echo '--- 3. The worker that runs workflows may: all secrets of a run in one call'
SET ROLE service_role;
SELECT * FROM meshhook_secrets.secret_get_many(:'shop', ARRAY['STRIPE_KEY', 'NO_SUCH_KEY'], purpose => 'run');

\echo
\echo '--- 4. The DBA decides that users may reveal too: now Alice can'
\set ECHO none
\c - postgres
\set ECHO queries
SELECT meshhook_secrets.setup_supabase(users_may_reveal => true) \g /dev/null
\set ECHO none
\c - authenticator
\set ECHO queries
SET ROLE authenticated;
SET request.jwt.claims = :'alice';
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY', purpose => 'reveal');

\echo
\echo '--- 5. Bob may not, and cannot even tell whether the project exists'
SET request.jwt.claims = :'bob';
\set ON_ERROR_STOP off
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY');
\set ECHO none
\ir refused.sql
\set ON_ERROR_STOP off
SELECT meshhook_secrets.secret_get('00000000-0000-4000-8000-00000000dead', 'STRIPE_KEY');
\set ECHO none
\ir refused.sql
\set ON_ERROR_STOP off
INSERT INTO meshhook_secrets.project_secrets (project_id, id, name) VALUES (:'shop', gen_random_uuid(), 'FORGED');
\set ECHO none
\ir refused.sql
\set ON_ERROR_STOP off
SET ROLE anon;
SELECT * FROM meshhook_secrets.secret_list(:'shop');
\set ECHO none
\ir refused.sql

\echo
\echo '--- 6. Versions: a new one, a write that came too late, an old one back'
SET ROLE authenticated;
SET request.jwt.claims = :'alice';
SELECT name, version FROM meshhook_secrets.secret_put(:'shop', 'STRIPE_KEY', 'sk_live_alice_2', cas => 1, previous_valid_for => '1 hour');
\set ON_ERROR_STOP off
SELECT name, version FROM meshhook_secrets.secret_put(:'shop', 'STRIPE_KEY', 'sk_live_too_late', cas => 1);
\set ECHO none
\set expected PT409
\ir refused.sql
SELECT version, status, is_current, expires_at IS NOT NULL AS expires FROM meshhook_secrets.secret_versions(:'shop', 'STRIPE_KEY');
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY') AS current, meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY', version => 1) AS version_1;
SELECT name, version FROM meshhook_secrets.secret_rollback(:'shop', 'STRIPE_KEY', version => 1);

\echo
\echo '--- 7. Deleted, and brought back'
SELECT name, status, purge_after - deleted_at AS recovery_window FROM meshhook_secrets.secret_delete(:'shop', 'STRIPE_KEY');
\set ON_ERROR_STOP off
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY');
\set ECHO none
\set expected PT410
\ir refused.sql
SELECT name, version, status FROM meshhook_secrets.secret_undelete(:'shop', 'STRIPE_KEY');
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY');

\echo
\echo '--- 8. What the disk holds, as a superuser sees it; and what happens to who changes it'
\set ECHO none
\c - postgres
\set ECHO queries
SELECT version, length(value) AS bytes, left(encode(value, 'hex'), 40) || '...' AS sealed FROM meshhook_secrets.secret_versions WHERE project_id = :'shop' LIMIT 2;
BEGIN;
UPDATE meshhook_secrets.project_secrets SET current_version = 2 WHERE name = 'STRIPE_KEY';
\set ON_ERROR_STOP off
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY');
ROLLBACK;
\set ECHO none
\set expected XX001
\ir refused.sql

\echo
\echo '--- 9. Sealed in an emergency: no key is left in memory, the server goes on'
SELECT meshhook_secrets.seal() \g /dev/null
SELECT sealed, cause, key_memory FROM meshhook_secrets.seal_status();
\set ON_ERROR_STOP off
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY');
\set ECHO none
\set expected PT503
\ir refused.sql
SELECT meshhook_secrets.unseal() \g /dev/null
SELECT meshhook_secrets.secret_get(:'shop', 'STRIPE_KEY');

\echo
\echo '--- 10. Who did all that: nobody reads unseen, and nobody changes the record unnoticed'
SELECT to_char(time, 'HH24:MI:SS') AS at, action, outcome, name, version, purpose, actor_role, left(claimed_sub, 8) AS claims_to_be, times
  FROM meshhook_secrets.audit_search(page_size => 15);
SELECT ok, records > 20 AS many_records, unsealed FROM meshhook_secrets.audit_verify();
BEGIN;
UPDATE meshhook_secrets.audit_log SET claimed_sub = NULL WHERE action = 'secret_get' AND outcome = 'denied';
SELECT ok, problems[1] FROM meshhook_secrets.audit_verify();
ROLLBACK;

\echo
\echo '--- 11. How things are'
SELECT state, cause FROM meshhook_secrets.health();
SELECT severity, finding, remedy FROM meshhook_secrets.doctor() WHERE severity <> 'info';
