-- Where somebody is told that a job is final, until that was done; and what users have switched off.

ALTER TABLE users ADD COLUMN muted text[] NOT NULL DEFAULT '{}' CHECK (muted <@ ARRAY['webhook', 'push']);

CREATE TABLE notifications (
    id         uuid PRIMARY KEY DEFAULT gen_random_uuid(),  -- the same each time that it is tried
    job_id     uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    channel    text NOT NULL CHECK (channel IN ('webhook', 'fcm', 'apns')),
    target     text NOT NULL,  -- a URL or a push token; the row is deleted once it was used
    tries      integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL DEFAULT now(),
    due_at     timestamptz NOT NULL DEFAULT now(),  -- when its turn comes, once its job is final
    UNIQUE (job_id, channel)
);
CREATE INDEX notifications_due ON notifications (due_at);
CREATE INDEX notifications_by_age ON notifications (created_at);
