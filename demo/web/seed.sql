-- What the people of the demo have when the page opens. Called after the migration of examples/supabase.

INSERT INTO public.meshhook_operators VALUES ('01a0a000-0000-4000-8000-000000000003');
INSERT INTO public.projects (id, owner, name) VALUES
  ('5709e000-0000-4000-8000-000000000004', 'a11ce000-0000-4000-8000-000000000001', 'Alice''s newsletter');

\set shop '5709e000-0000-4000-8000-000000000001'
\set blog 'b106e000-0000-4000-8000-000000000002'
\c - authenticator
SET ROLE authenticated;
SET request.jwt.claims = '{"sub": "a11ce000-0000-4000-8000-000000000001", "role": "authenticated"}';
SELECT FROM meshhook_secrets.secret_generate(:'shop', 'STRIPE_SECRET_KEY', description => 'Payments, live mode') \g /dev/null
SELECT FROM meshhook_secrets.secret_generate(:'shop', 'STRIPE_SECRET_KEY', cas => 1) \g /dev/null
SELECT FROM meshhook_secrets.secret_generate(:'shop', 'SMTP_PASSWORD', description => 'Order confirmations', expires_at => now() + interval '12 days') \g /dev/null
SELECT FROM meshhook_secrets.secret_generate(:'shop', 'WEBHOOK_SIGNING_KEY', length => 64, description => 'HMAC of outgoing webhooks') \g /dev/null
SET request.jwt.claims = '{"sub": "b0b00000-0000-4000-8000-000000000002", "role": "authenticated"}';
SELECT FROM meshhook_secrets.secret_generate(:'blog', 'GITHUB_TOKEN', description => 'Publishes the blog') \g /dev/null
