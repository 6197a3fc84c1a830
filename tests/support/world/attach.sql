-- What the host's own migration says to the extension.
SELECT meshhook_secrets.attach_projects('public.projects', member_function => 'public.user_project_ids()');
SELECT meshhook_secrets.setup_supabase(users_may_reveal => true);
