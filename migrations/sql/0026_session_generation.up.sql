-- Former tokens of a session end when it switches its organization, even if it switches to the same one or back.
ALTER TABLE session ADD COLUMN generation integer NOT NULL DEFAULT 0;
-- For the deletion of sessions that ended long ago.
CREATE INDEX session_end_idx ON session (least(ended_at, expires_at));
