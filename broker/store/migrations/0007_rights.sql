-- What users ask for by right, and how it stands; who restricted processing or is being erased; and jobs that outlive their
-- user for as long as a provider may have a copy, or a silent blob store ciphertext, of what they were given.

ALTER TABLE users ADD COLUMN restricted_at timestamptz;
ALTER TABLE users ADD COLUMN erasing_at timestamptz;

CREATE TABLE requests (
    id           uuid PRIMARY KEY,  -- who knows it may see how the request stands
    user_id      text REFERENCES users (id) ON DELETE SET NULL,
    kind         text NOT NULL CHECK (kind IN ('erasure', 'access', 'portability', 'rectification', 'restriction',
                                               'objection')),
    status       text NOT NULL CHECK (status IN ('pending', 'in_progress', 'completed', 'cancelled')),  -- OpenDSR's words
    received_at  timestamptz NOT NULL DEFAULT now(),
    expected_by  timestamptz NOT NULL,
    answer_by    timestamptz NOT NULL,  -- an alarm rings where it is open then
    destroyed_at timestamptz,           -- when all that was ours was gone
    completed_at timestamptz,
    resume_at    timestamptz,           -- when somebody else goes on with it
    CONSTRAINT completed_means_time CHECK ((completed_at IS NOT NULL) = (status IN ('completed', 'cancelled'))),
    CONSTRAINT open_means_resumed CHECK ((resume_at IS NOT NULL) = (completed_at IS NULL))
);
CREATE INDEX requests_by_user ON requests (user_id, received_at);
CREATE INDEX requests_open ON requests (resume_at) WHERE completed_at IS NULL;

-- What became of the copies at providers, once the jobs are deleted that they were of.
CREATE TABLE request_copies (
    request_id uuid NOT NULL REFERENCES requests (id) ON DELETE CASCADE,
    provider   text NOT NULL,
    evidence   text NOT NULL,
    copies     integer NOT NULL CHECK (copies > 0),
    until      timestamptz,
    PRIMARY KEY (request_id, provider, evidence)
);

ALTER TABLE jobs ALTER COLUMN user_id DROP NOT NULL;
ALTER TABLE jobs ADD COLUMN erased_by uuid REFERENCES requests (id);
ALTER TABLE jobs ADD CONSTRAINT user_or_erased CHECK ((user_id IS NULL) = (erased_by IS NOT NULL));
ALTER TABLE jobs ADD CONSTRAINT erased_means_final CHECK (erased_by IS NULL OR finalized_at IS NOT NULL);
CREATE INDEX jobs_erased ON jobs (erased_by) WHERE erased_by IS NOT NULL;

-- The door asks first; whoever gets past it while the user's word is being written meets it here. The row is locked, so
-- that a job is either refused or seen by whoever erases.
CREATE FUNCTION refuse_job() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    asked users;
BEGIN
    SELECT * INTO asked FROM users WHERE id = NEW.user_id FOR SHARE;
    IF asked.erasing_at IS NOT NULL THEN
        RAISE EXCEPTION 'the user is being erased' USING ERRCODE = 'check_violation', CONSTRAINT = 'user_erasing';
    ELSIF asked.restricted_at IS NOT NULL THEN
        RAISE EXCEPTION 'processing is restricted' USING ERRCODE = 'check_violation', CONSTRAINT = 'user_restricted';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER job_refused BEFORE INSERT ON jobs FOR EACH ROW EXECUTE FUNCTION refuse_job();

-- A job leaves its user only when nothing of ours can be opened any more.
CREATE FUNCTION keep_user() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM custody WHERE job_id = NEW.id AND domain = 'ours' AND closed_at IS NULL) THEN
        RAISE EXCEPTION 'a job with an open copy keeps its user' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER job_detached BEFORE UPDATE OF user_id ON jobs
    FOR EACH ROW WHEN (NEW.user_id IS NULL AND OLD.user_id IS NOT NULL) EXECUTE FUNCTION keep_user();
