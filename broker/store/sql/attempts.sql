-- name: begin
-- The attempt and its custody rows, before anything is sent; only while the job runs under this fence.
WITH job AS (
    UPDATE jobs SET version = version + 1, provider_copies = 'pending',
                    exposure = (ARRAY['local', 'ephemeral', 'logged', 'public'])[greatest(
                        array_position(ARRAY['local', 'ephemeral', 'logged', 'public'], exposure),
                        array_position(ARRAY['local', 'ephemeral', 'logged', 'public'], $5))]
    WHERE id = $2 AND fence = $3 AND state = 'running'
    RETURNING id
), attempt AS (
    INSERT INTO attempts (id, job_id, provider, is_outside, exposure, retention_s, deletes, state, hook_hash, cost_usd)
    SELECT $1, job.id, $4, true, $5, $6, $7, 'submitting', $8, $9 FROM job
    RETURNING id
), copies AS (
    INSERT INTO custody (job_id, domain, holder, what, ref, provider, detail, fence)
    SELECT job.id, 'provider', 'provider', part.what, $1::uuid::text, $4, $5, $3
    FROM job, unnest($10::text[]) AS part (what)
)
SELECT id FROM attempt

-- name: accepted
-- What exists at the provider; kept whoever owns the job by now, and purged where the job is settled already.
UPDATE attempts SET handle = $2, state = CASE WHEN $3 AND state = 'submitting' THEN 'waiting' ELSE state END,
                    purge_at = CASE WHEN ended_at IS NULL THEN purge_at ELSE now() END,
                    purge_until = CASE WHEN ended_at IS NULL THEN purge_until ELSE now() + $4 * interval '1 second' END
WHERE id = $1

-- name: end
-- How an attempt ended, once: a row for whoever ends it. What never left us has no copy there; what is told to cost less
-- than nothing costs what was expected; the job's costs are the sum of its attempts'.
WITH attempt AS (
    UPDATE attempts SET state = $2, kind = $3, after_s = $4, cost_usd = CASE WHEN $5::float8 >= 0 THEN $5 ELSE cost_usd END,
                        is_estimate = ($5 >= 0) IS NOT TRUE, ended_at = now(), hook_hash = NULL
    WHERE id = $1 AND ended_at IS NULL
    RETURNING id, job_id, provider, kind, cost_usd, extract(epoch FROM ended_at - started_at)::float8 AS took_s
), withdrawn AS (
    DELETE FROM custody USING attempt
    WHERE $6 AND custody.job_id = attempt.job_id AND custody.domain = 'provider' AND custody.ref = attempt.id::text
)
UPDATE jobs SET cost_usd = jobs.cost_usd + attempt.cost_usd, version = version + 1
FROM attempt WHERE jobs.id = attempt.job_id
RETURNING attempt.provider, attempt.kind, attempt.cost_usd, attempt.took_s

-- name: failed_here
-- An attempt that ended before anything left us: remembered for whoever claims the job next.
INSERT INTO attempts (id, job_id, provider, is_outside, exposure, state, kind, after_s, ended_at)
SELECT $1, jobs.id, $4, false, 'local', 'failed', $5, $6, now()
FROM jobs WHERE jobs.id = $2 AND jobs.fence = $3 AND jobs.state = 'running'
RETURNING provider, kind, cost_usd, 0::float8 AS took_s

-- name: of_job
-- Every attempt of a job, oldest first.
SELECT *, coalesce(extract(epoch FROM now() - ended_at), 0)::float8 AS ago_s
FROM attempts WHERE job_id = $1 ORDER BY started_at, id

-- name: find_by_hook
-- The attempt that a hint is for.
SELECT id FROM attempts WHERE hook_hash = $1 AND ended_at IS NULL

-- name: dispose
-- What is known of the copies at providers, and when the rest is asked for again.
WITH stated AS (
    UPDATE custody SET closed_at = now(), evidence = new.evidence, until = now() + new.until_s * interval '1 second'
    FROM unnest($2::bigint[], $3::text[], $4::float8[]) AS new (id, evidence, until_s)
    WHERE custody.id = new.id AND custody.job_id = $1 AND custody.domain = 'provider'
)
UPDATE attempts SET purge_at = now() + new.again_s * interval '1 second',
                    purge_until = CASE WHEN new.again_s IS NULL THEN NULL
                                       ELSE coalesce(purge_until, now() + $7 * interval '1 second') END
FROM unnest($5::uuid[], $6::float8[]) AS new (id, again_s)
WHERE attempts.id = new.id AND attempts.job_id = $1

-- name: due
-- Attempts at these providers that are to be purged now go to the caller, who has so long.
WITH due AS (
    SELECT attempts.id FROM attempts JOIN jobs ON jobs.id = attempts.job_id
    WHERE purge_at < now() AND provider = ANY($1) AND jobs.finalized_at IS NOT NULL
    ORDER BY purge_at
    LIMIT $3
    FOR UPDATE OF attempts SKIP LOCKED
)
UPDATE attempts SET purge_at = now() + $2 * interval '1 second'
FROM due WHERE attempts.id = due.id
RETURNING attempts.*, (attempts.purge_until < now()) AS is_late

-- name: orphaned
-- Attempts whose time for a purge is up though no worker runs their provider any more.
WITH late AS (
    SELECT attempts.id FROM attempts JOIN jobs ON jobs.id = attempts.job_id
    WHERE purge_at IS NOT NULL AND purge_until < now() - $1 * interval '1 second' AND jobs.finalized_at IS NOT NULL
    LIMIT $2
    FOR UPDATE OF attempts SKIP LOCKED
)
UPDATE attempts SET purge_at = now() + $1 * interval '1 second'
FROM late WHERE attempts.id = late.id
RETURNING attempts.*, true AS is_late

-- name: pending
-- How many attempts wait for a purge.
SELECT count(*) AS attempts FROM attempts WHERE purge_at IS NOT NULL
