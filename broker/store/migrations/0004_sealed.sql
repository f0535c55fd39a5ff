-- Outputs that end when they are delivered or deleted, one by one.

ALTER TABLE outputs ADD COLUMN destroy_at timestamptz;  -- where an output has a time of its own: from then on it is not served
CREATE INDEX outputs_due ON outputs (destroy_at) WHERE destroyed_at IS NULL AND destroy_at IS NOT NULL;
CREATE INDEX jobs_gallery ON jobs (user_id, finalized_at DESC, public_id DESC) WHERE state = 'succeeded';
