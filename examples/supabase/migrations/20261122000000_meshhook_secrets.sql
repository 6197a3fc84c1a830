-- Secrets of projects for an application on Supabase. Run as superuser (self-hosted: supabase_admin), after the
-- application's own tables; harmless to run again.
--
-- It expects MeshHook's public.projects(id, owner) and public.user_project_ids(). Afterwards add `meshhook_secrets`
-- to the exposed schemas of the API (PGRST_DB_SCHEMAS), and the hook below to Auth.

CREATE EXTENSION IF NOT EXISTS meshhook_secrets;
SELECT meshhook_secrets.attach_projects('public.projects', member_function => 'public.user_project_ids()');
-- The web page has a reveal button and shows members the records of their projects.
SELECT meshhook_secrets.setup_supabase(users_may_reveal => true, users_may_audit => true);

-- Operators look after keys and read the whole audit log. They are no users: no grant lets them list, write or
-- reveal a secret, and they see none of the application's tables but what is granted to PUBLIC. BYPASSRLS is what shows them all records.
DO $$
BEGIN
  IF to_regrole('meshhook_operator') IS NULL THEN
    CREATE ROLE meshhook_operator NOLOGIN;
  END IF;
END
$$;
ALTER ROLE meshhook_operator BYPASSRLS;
GRANT meshhook_secrets_kek_admin, meshhook_secrets_auditor TO meshhook_operator;
GRANT meshhook_operator TO authenticator;

-- Who is an operator: accounts of their own, of people who have no projects. Only superusers fill this table: the
-- default privileges of Supabase would let service_role make itself an operator.
DO $$
BEGIN
  IF to_regclass('public.meshhook_operators') IS NULL THEN
    CREATE TABLE public.meshhook_operators (user_id uuid PRIMARY KEY);
  END IF;
END
$$;
ALTER TABLE public.meshhook_operators ENABLE ROW LEVEL SECURITY; -- and no policy
REVOKE ALL ON public.meshhook_operators FROM PUBLIC, anon, authenticated, service_role;

-- For a scheduler that only rotates the KEK: its token can do nothing else.
DO $$
BEGIN
  IF to_regrole('meshhook_scheduler') IS NULL THEN
    CREATE ROLE meshhook_scheduler NOLOGIN;
  END IF;
END
$$;
GRANT USAGE ON SCHEMA meshhook_secrets TO meshhook_scheduler;
GRANT USAGE ON TYPE meshhook_secrets.kek_rotation TO meshhook_scheduler;
GRANT EXECUTE ON FUNCTION meshhook_secrets.kek_rotate(text), meshhook_secrets.kek_status() TO meshhook_scheduler;
GRANT meshhook_scheduler TO authenticator;

-- Auth asks this hook before it issues an access token (GOTRUE_HOOK_CUSTOM_ACCESS_TOKEN_URI =
-- pg-functions://postgres/public/meshhook_access_token_hook). The claim "role" is the role that the API switches to. Auth
-- has one such hook: if there is one already, let it call this function with its result.
CREATE OR REPLACE FUNCTION public.meshhook_access_token_hook(event jsonb) RETURNS jsonb
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
  SELECT CASE WHEN EXISTS (SELECT FROM public.meshhook_operators o WHERE o.user_id = (event ->> 'user_id')::uuid)
              THEN jsonb_set(event, '{claims,role}', '"meshhook_operator"') ELSE event END
$$;
REVOKE ALL ON FUNCTION public.meshhook_access_token_hook(jsonb) FROM PUBLIC, anon, authenticated, service_role;
DO $$
BEGIN
  IF to_regrole('supabase_auth_admin') IS NOT NULL THEN
    GRANT USAGE ON SCHEMA public TO supabase_auth_admin;
    GRANT EXECUTE ON FUNCTION public.meshhook_access_token_hook(jsonb) TO supabase_auth_admin;
  END IF;
END
$$;
