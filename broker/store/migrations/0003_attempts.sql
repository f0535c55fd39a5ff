-- What is tried at providers outside, what it costs, and what is known of the copies that they have.

ALTER TABLE custody DROP CONSTRAINT custody_what_check;
ALTER TABLE custody ADD CONSTRAINT custody_what_check CHECK (what IN ('upload', 'parameters', 'output', 'record'));
ALTER TABLE custody ADD COLUMN provider text NOT NULL DEFAULT '';  -- whose hands it is in, by the name in lethe.toml
ALTER TABLE custody ADD COLUMN until timestamptz;                  -- the time in "expires by" and "pending until"
ALTER TABLE custody ADD CONSTRAINT until_has_a_word
    CHECK (until IS NULL OR evidence IN ('expires_by', 'kept_by_terms', 'purge_pending'));

CREATE TABLE attempts (
    id          uuid PRIMARY KEY,  -- the only id that a provider sees
    job_id      uuid NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    provider    text NOT NULL,
    is_outside  boolean NOT NULL,
    exposure    text NOT NULL CHECK (exposure IN ('local', 'ephemeral', 'logged', 'public')),
    retention_s bigint NOT NULL DEFAULT 0,
    deletes     text NOT NULL DEFAULT 'none' CHECK (deletes IN ('none', 'ttl', 'api')),
    state       text NOT NULL CHECK (state IN ('submitting', 'waiting', 'succeeded', 'failed')),
    kind        text NOT NULL DEFAULT '',  -- of failure
    after_s     double precision,          -- when the provider wanted to be asked again
    handle      jsonb,                     -- ids and addresses there: enough to poll, cancel and purge
    hook_hash   bytea UNIQUE CHECK (octet_length(hook_hash) = 32),
    cost_usd    double precision NOT NULL DEFAULT 0 CHECK (cost_usd >= 0),
    is_estimate boolean NOT NULL DEFAULT true,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at    timestamptz,
    purge_at    timestamptz,               -- when the provider is asked to delete next; null: it need not be
    purge_until timestamptz,
    CONSTRAINT ended_means_decided CHECK ((ended_at IS NULL) = (state IN ('submitting', 'waiting'))),
    CONSTRAINT failed_means_kind CHECK ((state = 'failed') = (kind <> ''))
);
CREATE INDEX attempts_by_job ON attempts (job_id, started_at);
CREATE INDEX attempts_to_purge ON attempts (purge_at) WHERE purge_at IS NOT NULL;

ALTER TABLE jobs ADD COLUMN cost_usd double precision NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN exposure text NOT NULL DEFAULT 'local'
    CHECK (exposure IN ('local', 'ephemeral', 'logged', 'public'));
ALTER TABLE jobs ADD COLUMN provider_copies text NOT NULL DEFAULT 'none'
    CHECK (provider_copies IN ('none', 'deleted', 'expires', 'pending', 'kept', 'unknown'));
ALTER TABLE jobs ADD COLUMN not_before timestamptz;  -- a queued job waits until then
