-- After a statement that must be refused: was it, and with the SQLSTATE in :expected?
SELECT :'LAST_ERROR_SQLSTATE' = :'expected' AS as_expected \gset
\if :as_expected
  \echo '  (refused with' :expected', as it should be)'
\else
  \echo '*** expected' :expected 'but got' :LAST_ERROR_SQLSTATE
  \set ON_ERROR_STOP on
  SELECT 'the demo did not go as it should'::int;
\endif
\set ON_ERROR_STOP on
\set ECHO queries
