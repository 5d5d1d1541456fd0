DROP INDEX session_end_idx;
ALTER TABLE session DROP COLUMN generation;
