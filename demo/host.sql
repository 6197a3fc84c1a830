-- A host application like MeshHook: Supabase's roles, projects with an owner, and row-level
-- security. Nothing in it knows about secrets but the last two statements.

CREATE ROLE authenticator LOGIN NOINHERIT;
CREATE ROLE anon NOLOGIN NOINHERIT;
CREATE ROLE authenticated NOLOGIN NOINHERIT;
CREATE ROLE service_role NOLOGIN NOINHERIT BYPASSRLS;
GRANT anon, authenticated, service_role TO authenticator;

-- Supabase grants everything in public to everybody, and leaves the rest to row-level security.
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;

CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;
CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
  AS $$ SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;

CREATE TABLE public.projects (
  id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  owner uuid NOT NULL DEFAULT auth.uid(),
  name  text NOT NULL
);
CREATE FUNCTION public.user_project_ids() RETURNS SETOF uuid
  LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
  AS $$ SELECT id FROM public.projects WHERE owner = auth.uid() $$;
REVOKE ALL ON FUNCTION public.user_project_ids() FROM PUBLIC, anon;
ALTER TABLE public.projects ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON public.projects TO authenticated USING (owner = auth.uid());

INSERT INTO public.projects (id, owner, name) VALUES
  ('5709e000-0000-4000-8000-000000000001', 'a11ce000-0000-4000-8000-000000000001', 'Alice''s shop'),
  ('b106e000-0000-4000-8000-000000000002', 'b0b00000-0000-4000-8000-000000000002', 'Bob''s blog');

CREATE EXTENSION meshhook_secrets;
SELECT meshhook_secrets.attach_projects('public.projects', member_function => 'public.user_project_ids()') \g /dev/null
SELECT meshhook_secrets.setup_supabase(users_may_reveal => false) \g /dev/null
