CREATE TYPE meshhook_secrets.secret_version_info AS (
  id         uuid,
  name       text,
  version    integer,
  created_at timestamptz,
  expires_at timestamptz
);
COMMENT ON TYPE meshhook_secrets.secret_version_info IS 'The version of a secret that was just written.';

CREATE TYPE meshhook_secrets.secret_info AS (
  id          uuid,
  name        text,
  description text,
  metadata    jsonb,
  version     integer,
  status      text,
  created_at  timestamptz,
  updated_at  timestamptz,
  created_by  text,
  expires_at  timestamptz,
  deleted_at  timestamptz,
  purge_after timestamptz
);
COMMENT ON TYPE meshhook_secrets.secret_info IS 'A secret without its value. status: enabled, expired or deleted.';
CREATE TYPE meshhook_secrets.kek_rotation AS (
  job_id      integer,
  kek_id      integer,
  reason      text,
  total       bigint,
  remaining   bigint,
  started_at  timestamptz,
  started_by  text,
  finished_at timestamptz,
  last_error  text
);
COMMENT ON TYPE meshhook_secrets.kek_rotation IS 'A rotation: the KEK that became active, and how many data keys are still to be rewrapped.';
REVOKE ALL ON TYPE meshhook_secrets.kek_rotation FROM PUBLIC;
GRANT USAGE ON TYPE meshhook_secrets.kek_rotation TO meshhook_secrets_kek_admin;

REVOKE ALL ON TYPE meshhook_secrets.secret_version_info, meshhook_secrets.secret_info FROM PUBLIC;
GRANT USAGE ON TYPE meshhook_secrets.secret_version_info, meshhook_secrets.secret_info TO meshhook_secrets_writer;
