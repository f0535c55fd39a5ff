-- Jobs, custody, users, receipts, processes. Never a key, a file name, a prompt or a plaintext digest.

CREATE TABLE users (
    id           text PRIMARY KEY,
    token_hash   bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    created_on   date NOT NULL DEFAULT (now() AT TIME ZONE 'utc')::date,
    last_seen_on date NOT NULL DEFAULT (now() AT TIME ZONE 'utc')::date
);

CREATE TABLE processes (
    id          uuid PRIMARY KEY,
    role        text NOT NULL CHECK (role IN ('broker', 'worker')),
    lease_until timestamptz NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT now(),
    facts       jsonb NOT NULL DEFAULT '{}'
);

CREATE TABLE jobs (
    id             uuid PRIMARY KEY,
    public_id      uuid NOT NULL,
    user_id        text NOT NULL REFERENCES users (id),
    operation      text NOT NULL,
    parameters     jsonb NOT NULL,
    media_type     text NOT NULL DEFAULT '',
    profile        text NOT NULL,
    pool           text NOT NULL,
    state          text NOT NULL CHECK (state IN ('receiving', 'queued', 'running', 'settling',
                                                  'succeeded', 'failed', 'canceled', 'expired')),
    outcome        text CHECK (outcome IN ('succeeded', 'failed', 'canceled', 'expired')),
    code           text NOT NULL DEFAULT '',
    version        integer NOT NULL DEFAULT 1,
    fence          integer NOT NULL DEFAULT 1,
    owner          uuid,
    attempts       integer NOT NULL DEFAULT 0,
    crashes        integer NOT NULL DEFAULT 0,
    progress       double precision NOT NULL DEFAULT 0,
    open_copies    integer NOT NULL DEFAULT 0 CHECK (open_copies >= 0),
    upload_bytes   bigint NOT NULL DEFAULT 0,
    fingerprint    bytea NOT NULL DEFAULT '',
    created_at     timestamptz NOT NULL DEFAULT now(),
    queued_at      timestamptz,
    started_at     timestamptz,
    decided_at     timestamptz,
    finalized_at   timestamptz,
    start_by       timestamptz NOT NULL,
    finish_by      timestamptz NOT NULL,
    settling_until timestamptz,
    outputs_until  timestamptz,
    charged        boolean NOT NULL DEFAULT false,
    UNIQUE (user_id, public_id),
    CONSTRAINT final_means_finalized
        CHECK ((finalized_at IS NOT NULL) = (state IN ('succeeded', 'failed', 'canceled', 'expired'))),
    CONSTRAINT final_means_no_open_copies CHECK (finalized_at IS NULL OR open_copies = 0),
    CONSTRAINT settling_means_decided
        CHECK ((outcome IS NOT NULL) = (state NOT IN ('receiving', 'queued', 'running'))),
    CONSTRAINT final_means_outcome CHECK (finalized_at IS NULL OR state = outcome),
    CONSTRAINT charged_means_succeeded CHECK (NOT charged OR state = 'succeeded')
) WITH (fillfactor = 50);  -- a job is written nine times: room for the next version beside the last
CREATE INDEX jobs_live ON jobs (state, pool, queued_at) WHERE finalized_at IS NULL;
CREATE INDEX jobs_by_user ON jobs (user_id, created_at DESC, id);
CREATE INDEX jobs_final ON jobs (finalized_at) WHERE finalized_at IS NOT NULL;

CREATE TABLE custody (
    id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id    uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    domain    text NOT NULL CHECK (domain IN ('ours', 'provider')),
    holder    text NOT NULL CHECK (holder IN ('blob', 'key', 'process', 'provider')),
    what      text NOT NULL CHECK (what IN ('upload', 'parameters', 'output')),
    ref       text NOT NULL,
    detail    text NOT NULL DEFAULT '',
    fence     integer NOT NULL,
    opened_at timestamptz NOT NULL DEFAULT now(),
    closed_at timestamptz,
    evidence  text,
    swept_at  timestamptz,
    CONSTRAINT closed_means_evidence CHECK ((closed_at IS NULL) = (evidence IS NULL)),
    CONSTRAINT evidence_fits_holder CHECK (
        evidence IS NULL
        OR (domain = 'ours' AND holder = 'key' AND evidence = 'shredded')
        OR (domain = 'ours' AND holder = 'blob' AND evidence IN ('absent', 'unreadable'))
        OR (domain = 'ours' AND holder = 'process' AND evidence IN ('process_exited', 'overwritten', 'lease_ended'))
        OR (domain = 'provider' AND evidence IN ('deleted_by_api', 'expires_by', 'kept_by_terms',
                                                 'purge_pending', 'unknown')))
);
CREATE INDEX custody_by_job ON custody (job_id);
CREATE INDEX custody_held ON custody (ref) WHERE holder = 'process' AND closed_at IS NULL;
CREATE INDEX custody_outputs ON custody (job_id) WHERE what = 'output' AND closed_at IS NULL;
CREATE INDEX custody_unswept ON custody (id) WHERE evidence = 'unreadable' AND swept_at IS NULL;

CREATE TABLE outputs (
    job_id       uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    n            integer NOT NULL,
    blob         text NOT NULL,
    key_id       bytea NOT NULL,
    keyholder    text NOT NULL,
    incarnation  bytea NOT NULL,
    media_type   text NOT NULL,
    size_bytes   bigint NOT NULL,
    width        integer NOT NULL,
    height       integer NOT NULL,
    destroyed_at timestamptz,
    PRIMARY KEY (job_id, n)
);

CREATE TABLE receipts (
    job_id     uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    revision   integer NOT NULL,
    note       text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (job_id, revision)
);

CREATE TABLE receipt_keys (
    vkey          text PRIMARY KEY,
    first_used_at timestamptz NOT NULL DEFAULT now(),
    last_used_at  timestamptz NOT NULL DEFAULT now()
);

-- The counter, not a SELECT of open rows: two transactions that cannot see each other's rows both lock the job's row.
CREATE FUNCTION count_opened() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jobs SET open_copies = open_copies + added.copies
    FROM (SELECT job_id, count(*) AS copies FROM opened
          WHERE domain = 'ours' AND what <> 'output' AND closed_at IS NULL GROUP BY job_id) AS added
    WHERE jobs.id = added.job_id;
    RETURN NULL;
END $$;
CREATE TRIGGER custody_opened AFTER INSERT ON custody
    REFERENCING NEW TABLE AS opened FOR EACH STATEMENT EXECUTE FUNCTION count_opened();

CREATE FUNCTION count_closed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE jobs SET open_copies = open_copies - gone.copies
    FROM (SELECT after.job_id, count(*) AS copies FROM after JOIN before USING (id)
          WHERE after.domain = 'ours' AND after.what <> 'output'
            AND before.closed_at IS NULL AND after.closed_at IS NOT NULL GROUP BY after.job_id) AS gone
    WHERE jobs.id = gone.job_id;
    RETURN NULL;
END $$;
CREATE TRIGGER custody_closed AFTER UPDATE ON custody
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION count_closed();

-- A closed copy of ours stays as it is (but for when its unreadable blob was deleted after all), an open row is never
-- deleted, and nothing but closing may change a row.
CREATE FUNCTION keep_custody() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF OLD.closed_at IS NULL AND OLD.domain = 'ours' THEN
            RAISE EXCEPTION 'an open copy cannot be deleted' USING ERRCODE = 'check_violation';
        END IF;
        RETURN OLD;
    END IF;
    IF (OLD.closed_at IS NOT NULL AND OLD.domain = 'ours'
        AND to_jsonb(NEW) - 'swept_at' IS DISTINCT FROM to_jsonb(OLD) - 'swept_at')
       OR (NEW.id, NEW.job_id, NEW.domain, NEW.holder, NEW.what, NEW.ref, NEW.fence, NEW.opened_at)
          IS DISTINCT FROM (OLD.id, OLD.job_id, OLD.domain, OLD.holder, OLD.what, OLD.ref, OLD.fence, OLD.opened_at) THEN
        RAISE EXCEPTION 'a copy can only be closed' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER custody_kept BEFORE UPDATE OR DELETE ON custody
    FOR EACH ROW EXECUTE FUNCTION keep_custody();

-- TRUNCATE passes by the triggers of rows.
CREATE FUNCTION keep_all_custody() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM custody WHERE closed_at IS NULL AND domain = 'ours') THEN
        RAISE EXCEPTION 'an open copy cannot be deleted' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER all_custody_kept BEFORE TRUNCATE ON custody
    FOR EACH STATEMENT EXECUTE FUNCTION keep_all_custody();

-- Nobody sets the counter by hand, and a final job stays as it is.
CREATE FUNCTION keep_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        RAISE EXCEPTION 'a job starts without copies' USING ERRCODE = 'check_violation';
    END IF;
    IF NEW.open_copies <> OLD.open_copies AND pg_trigger_depth() = 1 THEN
        RAISE EXCEPTION 'open_copies follows custody' USING ERRCODE = 'check_violation';
    END IF;
    IF OLD.finalized_at IS NOT NULL AND (NEW.state, NEW.finalized_at) IS DISTINCT FROM (OLD.state, OLD.finalized_at) THEN
        RAISE EXCEPTION 'a final state stays' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER job_kept BEFORE UPDATE ON jobs
    FOR EACH ROW WHEN (OLD.open_copies <> NEW.open_copies OR OLD.finalized_at IS NOT NULL)
    EXECUTE FUNCTION keep_job();
CREATE TRIGGER job_starts_empty BEFORE INSERT ON jobs
    FOR EACH ROW WHEN (NEW.open_copies <> 0) EXECUTE FUNCTION keep_job();
