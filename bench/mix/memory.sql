-- 1 none ok 0
-- How much memory the backend's contexts have.
SELECT bench.look_at_memory();
