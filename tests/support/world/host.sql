-- Projects and their members, guarded by row-level security.

-- Supabase grants everything in public to everybody and leaves the rest to RLS.
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;

CREATE SCHEMA auth;
GRANT USAGE ON SCHEMA auth TO anon, authenticated, service_role;

CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE
    AS $$ SELECT (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid $$;

CREATE TABLE public.projects (
    id    uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    owner uuid NOT NULL DEFAULT auth.uid(),
    name  text
);

CREATE TABLE public.project_members (
    project_id uuid NOT NULL REFERENCES public.projects ON DELETE CASCADE,
    user_id    uuid NOT NULL,
    PRIMARY KEY (project_id, user_id)
);

CREATE FUNCTION public.user_project_ids() RETURNS SETOF uuid
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = ''
    AS $$
        SELECT id FROM public.projects WHERE owner = auth.uid()
        UNION
        SELECT project_id FROM public.project_members WHERE user_id = auth.uid()
    $$;
REVOKE ALL ON FUNCTION public.user_project_ids() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION public.user_project_ids() TO authenticated, service_role;

ALTER TABLE public.projects ENABLE ROW LEVEL SECURITY;
CREATE POLICY members_read ON public.projects FOR SELECT TO authenticated
    USING (id IN (SELECT public.user_project_ids()));
CREATE POLICY owners_write ON public.projects FOR ALL TO authenticated
    USING (owner = auth.uid()) WITH CHECK (owner = auth.uid());

ALTER TABLE public.project_members ENABLE ROW LEVEL SECURITY;
CREATE POLICY members_read ON public.project_members FOR SELECT TO authenticated
    USING (project_id IN (SELECT public.user_project_ids()));
