-- name: receive
-- Commit the row and its custody rows before the first byte is kept; no row when the id is taken.
WITH job AS (
    INSERT INTO jobs (id, public_id, user_id, operation, parameters, profile, pool, owner, price, state,
                      start_by, finish_by, is_sealed)
    VALUES ($15, $2, $1, $3, $4, $5, $6, $7, $9, 'receiving',
            now() + $8 * interval '1 second', now() + $8 * interval '1 second', $14)
    ON CONFLICT (user_id, public_id) DO NOTHING
    RETURNING *
), copies AS (
    INSERT INTO custody (job_id, domain, holder, what, ref, detail, fence)
    SELECT job.id, 'ours', new.holder, new.what, new.ref, new.detail, job.fence
    FROM job, unnest($10::text[], $11::text[], $12::text[], $13::text[]) AS new (holder, what, ref, detail)
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: take_over
-- A later upload by the same user under an id that is still receiving; the older stream is cut by the fence.
WITH job AS (
    UPDATE jobs SET fence = fence + 1, version = version + 1, operation = $3, parameters = $4, profile = $5, pool = $6,
                    owner = $7, price = $9, created_at = now(), settling_until = NULL, is_sealed = $14,
                    start_by = now() + $8 * interval '1 second', finish_by = now() + $8 * interval '1 second'
    WHERE user_id = $1 AND public_id = $2 AND state = 'receiving'
      AND NOT EXISTS (SELECT FROM users WHERE id = $1 AND (erasing_at IS NOT NULL OR restricted_at IS NOT NULL))
    RETURNING *
), copies AS (
    INSERT INTO custody (job_id, domain, holder, what, ref, detail, fence)
    SELECT job.id, 'ours', new.holder, new.what, new.ref, new.detail, job.fence
    FROM job, unnest($10::text[], $11::text[], $12::text[], $13::text[]) AS new (holder, what, ref, detail)
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: admit
-- The upload is whole and its keys are held: the job may be claimed, and the broker has let go of its buffers.
WITH job AS (
    UPDATE jobs SET state = 'queued', version = version + 1, media_type = $3, upload_bytes = $4, fingerprint = $5,
                    owner = NULL, queued_at = now(),
                    start_by = now() + $6 * interval '1 second', finish_by = now() + $7 * interval '1 second'
    WHERE id = $1 AND fence = $2 AND state = ANY($8)
    RETURNING *
), kept AS (
    INSERT INTO uploads (job_id, n, what, blob, key_id, incarnation, media_type, size_bytes)
    SELECT job.id, new.n, new.what, new.blob, new.key_id, new.incarnation, new.media_type, new.size_bytes
    FROM job, unnest($9::int[], $10::text[], $11::text[], $12::bytea[], $13::bytea[], $14::text[], $15::bigint[])
              AS new (n, what, blob, key_id, incarnation, media_type, size_bytes)
), told AS (
    INSERT INTO notifications (job_id, channel, target)
    SELECT job.id, new.channel, new.target
    FROM job JOIN users ON users.id = job.user_id,
         unnest($16::text[], $17::text[], $18::text[]) AS new (channel, kind, target)
    WHERE new.kind <> ALL (users.muted)  -- what its user has switched off is not even kept
), released AS (
    UPDATE custody SET closed_at = now(), evidence = 'overwritten'
    FROM job
    WHERE custody.job_id = job.id AND custody.holder = 'process' AND custody.fence = job.fence
      AND custody.closed_at IS NULL
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: claim
-- One winner: a new fence, an owner with a live lease, and a custody row for the process that will open the upload.
WITH job AS (
    UPDATE jobs SET state = 'running', owner = $2, fence = fence + 1, version = version + 1, attempts = attempts + 1,
                    started_at = coalesce(started_at, now())
    WHERE id = $1 AND state = ANY($3) AND (started_at IS NOT NULL OR start_by > now()) AND finish_by > now()
      AND (not_before IS NULL OR not_before <= now())
      AND EXISTS (SELECT FROM processes WHERE processes.id = $2 AND lease_until > now())
    RETURNING *
), copies AS (
    INSERT INTO custody (job_id, domain, holder, what, ref, detail, fence)
    SELECT job.id, 'ours', 'process', 'upload', $2::uuid::text, 'worker', job.fence FROM job
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: retry
-- The worker gives the job back, its buffers wiped; somebody else may claim it.
WITH job AS (
    UPDATE jobs SET state = 'queued', owner = NULL, fence = fence + 1, version = version + 1, progress = 0, pool = $4,
                    not_before = CASE WHEN $5 > 0 THEN now() + $5 * interval '1 second' END
    WHERE id = $1 AND fence = $2 AND state = ANY($3)
    RETURNING *
), released AS (
    UPDATE custody SET closed_at = now(), evidence = 'overwritten'
    FROM job
    WHERE custody.job_id = job.id AND custody.holder = 'process' AND custody.fence = $2 AND custody.closed_at IS NULL
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: rescue
-- Running jobs whose owner's lease ended at least the grace time ago go back to the queue, while they may crash again.
WITH dead AS (
    SELECT jobs.id, jobs.owner
    FROM jobs LEFT JOIN processes ON processes.id = jobs.owner
    WHERE jobs.state = ANY($1) AND jobs.finalized_at IS NULL AND jobs.crashes + 1 < $4
      AND (processes.id IS NULL OR processes.lease_until < now() - $2 * interval '1 second')
    LIMIT $3
    FOR UPDATE OF jobs SKIP LOCKED
), job AS (
    UPDATE jobs SET state = 'queued', owner = NULL, fence = fence + 1, version = version + 1, crashes = crashes + 1,
                    progress = 0
    FROM dead WHERE jobs.id = dead.id
    RETURNING jobs.*
), released AS (
    UPDATE custody SET closed_at = now(), evidence = 'lease_ended'
    FROM dead
    WHERE custody.job_id = dead.id AND custody.holder = 'process' AND custody.ref = dead.owner::text
      AND custody.closed_at IS NULL
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: give_up
-- Running jobs whose owner died, once too often: decided in the same write, so that nobody can claim them in between.
WITH dead AS (
    SELECT jobs.id, jobs.owner
    FROM jobs LEFT JOIN processes ON processes.id = jobs.owner
    WHERE jobs.state = ANY($1) AND jobs.finalized_at IS NULL AND jobs.crashes + 1 >= $4
      AND (processes.id IS NULL OR processes.lease_until < now() - $2 * interval '1 second')
    LIMIT $3
    FOR UPDATE OF jobs SKIP LOCKED
), job AS (
    UPDATE jobs SET state = 'settling', outcome = 'failed', code = 'crashed_worker', owner = $5, decided_at = now(),
                    fence = fence + 1, version = version + 1, crashes = crashes + 1,
                    settling_until = now() + $6 * interval '1 second'
    FROM dead WHERE jobs.id = dead.id
    RETURNING jobs.*
), released AS (
    UPDATE custody SET closed_at = now(), evidence = 'lease_ended'
    FROM dead
    WHERE custody.job_id = dead.id AND custody.holder = 'process' AND custody.ref = dead.owner::text
      AND custody.closed_at IS NULL
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: begin_settling
-- The outcome is decided; from here on the job is only destroyed, never run. Outputs are named in the same commit.
WITH job AS (
    UPDATE jobs SET state = 'settling', outcome = $3, code = $4, owner = $5, decided_at = now(), fence = fence + 1,
                    version = version + 1, settling_until = now() + $6 * interval '1 second'
    WHERE id = $1 AND fence = $2 AND state = ANY($7)
    RETURNING *
), made AS (
    INSERT INTO outputs (job_id, n, blob, key_id, keyholder, incarnation, media_type, size_bytes, width, height,
                         is_sealed, thumbnail, thumbnail_bytes)
    SELECT job.id, new.n, new.blob, new.key_id, new.keyholder, new.incarnation, new.media_type, new.size_bytes,
           new.width, new.height, new.is_sealed, new.thumbnail, new.thumbnail_bytes
    FROM job, unnest($8::int[], $9::text[], $10::bytea[], $11::text[], $12::bytea[], $13::text[], $14::bigint[],
                     $15::int[], $16::int[], $17::boolean[], $18::text[], $19::bigint[])
              AS new (n, blob, key_id, keyholder, incarnation, media_type, size_bytes, width, height,
                      is_sealed, thumbnail, thumbnail_bytes)
), sealed_to AS (
    SELECT id FROM devices WHERE id = ANY($21) FOR KEY SHARE  -- one that was deleted meanwhile opens nothing
), wrapped AS (
    INSERT INTO output_keys (job_id, n, device_id, wrapped)
    SELECT job.id, new.n, sealed_to.id, new.wrapped
    FROM job, unnest($20::int[], $21::uuid[], $22::bytea[]) AS new (n, device_id, wrapped)
              JOIN sealed_to ON sealed_to.id = new.device_id
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: overdue
-- Jobs past their deadline that nobody has decided yet.
SELECT jobs.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s
FROM jobs
WHERE finalized_at IS NULL
  AND ((state = 'queued' AND started_at IS NULL AND start_by < now())
       OR (state IN ('queued', 'running') AND finish_by < now()))
LIMIT $1

-- name: resume_settling
-- Settling jobs whose settler died or gave up go to the caller, under a new fence.
WITH stale AS (
    SELECT id FROM jobs
    WHERE state = 'settling' AND settling_until < now()
    ORDER BY settling_until
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), job AS (
    UPDATE jobs SET owner = $1, fence = fence + 1, settling_until = now() + $2 * interval '1 second'
    FROM stale WHERE jobs.id = stale.id
    RETURNING jobs.*
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: postpone_settling
-- The settler could not finish; somebody takes the job up again in a moment.
UPDATE jobs SET settling_until = now() + $3 * interval '1 second'
WHERE id = $1 AND fence = $2 AND state = 'settling'

-- name: finish
-- The last write: final state and receipt together. Postgres refuses it while a copy is open.
WITH job AS (
    UPDATE jobs SET state = outcome, finalized_at = now(), charged = (outcome = 'succeeded'), owner = NULL,
                    settling_until = NULL, version = version + 1, provider_copies = $7, exposure = $8,
                    progress = CASE WHEN outcome = 'succeeded' THEN 1 ELSE progress END,
                    outputs_until = CASE WHEN outcome = 'succeeded' THEN now() + $3::float8 * interval '1 second' ELSE now() END
    WHERE id = $1 AND fence = $2 AND state = 'settling' AND outcome = $4
    RETURNING *
), receipt AS (
    INSERT INTO receipts (job_id, revision, note) SELECT job.id, $5, $6 FROM job
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: abandoned
-- Unfinished uploads whose broker died or whose time is up go to the caller, under a new fence, to be discarded; one
-- that somebody is discarding already, only when that takes too long; one that waits for its blob alone, once it is swept.
WITH stale AS (
    SELECT jobs.id
    FROM jobs LEFT JOIN processes ON processes.id = jobs.owner
    WHERE jobs.state = 'receiving'
      AND NOT (jobs.open_copies = 0 AND EXISTS (SELECT FROM custody WHERE custody.job_id = jobs.id
                                                AND custody.evidence = 'unreadable' AND custody.swept_at IS NULL))
      AND (jobs.settling_until < now()
           OR (jobs.settling_until IS NULL
               AND (processes.id IS NULL OR processes.lease_until < now() - $2 * interval '1 second'
                    OR jobs.finish_by < now())))
    ORDER BY random()
    LIMIT $3
    FOR UPDATE OF jobs SKIP LOCKED
), job AS (
    UPDATE jobs SET owner = $1, fence = fence + 1, settling_until = now() + $4 * interval '1 second'
    FROM stale WHERE jobs.id = stale.id
    RETURNING jobs.*
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: cut
-- One unfinished upload goes to the caller, under a new fence, to be discarded.
UPDATE jobs SET owner = $2, fence = fence + 1, version = version + 1,
                settling_until = now() + $4 * interval '1 second'
WHERE id = $1 AND fence = $3 AND state = 'receiving'
RETURNING jobs.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s

-- name: discard
-- Delete the row of an unfinished upload once no copy is open, and no ciphertext lies in a store that was silent.
DELETE FROM jobs
WHERE id = $1 AND fence = $2 AND state = 'receiving' AND open_copies = 0
  AND NOT EXISTS (SELECT FROM custody WHERE job_id = $1 AND evidence = 'unreadable' AND swept_at IS NULL)
RETURNING id

-- name: set_progress
-- How far the attempt is, 0 to 1.
UPDATE jobs SET progress = $3, version = version + 1
WHERE id = $1 AND fence = $2 AND state = 'running'
RETURNING version

-- name: get
-- One job by its internal id.
SELECT jobs.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM jobs WHERE id = $1

-- name: find
-- One job of one user by the id that the user chose.
SELECT jobs.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s
FROM jobs WHERE user_id = $1 AND public_id = $2

-- name: page
-- A user's jobs, newest first, before a cursor (created_at, id).
SELECT jobs.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s
FROM jobs
WHERE user_id = $1 AND state <> 'receiving'
  AND ($2::timestamptz IS NULL OR (created_at, id) < ($2, $3))
ORDER BY created_at DESC, id DESC
LIMIT $4

-- name: look
-- The job of this id, if there is one, what else its user has running and has sent in the last minute, and may spend.
WITH usage AS (
    SELECT count(*) FILTER (WHERE finalized_at IS NULL) AS live,
           count(*) FILTER (WHERE created_at > now() - interval '1 minute') AS last_minute
    FROM jobs
    WHERE user_id = $1 AND public_id <> $2 AND (finalized_at IS NULL OR created_at > now() - interval '1 minute')
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s, usage.live, usage.last_minute,
       coalesce((SELECT credits - held FROM accounts WHERE user_id = $1), 0) AS credits,
       (SELECT count(*) FROM devices WHERE devices.user_id = $1) AS devices,
       users.restricted_at IS NOT NULL AS is_restricted, users.erasing_at IS NOT NULL AS is_erasing
FROM usage LEFT JOIN users ON users.id = $1
           LEFT JOIN jobs AS job ON job.user_id = $1 AND job.public_id = $2

-- name: ahead
-- How many queued jobs of the same pool would be claimed before this one, as far as it is worth counting.
SELECT count(*) AS ahead
FROM (SELECT FROM jobs AS other JOIN jobs AS mine ON mine.id = $1
      WHERE other.state = 'queued' AND other.pool = mine.pool AND other.queued_at < mine.queued_at
      LIMIT $2) AS before

-- name: unclaimed
-- Queued jobs that nobody claimed for a while: their bell was lost, or no worker is free. Some of every pool, so that a
-- long queue in one hides nobody in another.
SELECT jobs.id, fence, jobs.pool, operation, parameters,
       (SELECT count(*) FROM uploads WHERE uploads.job_id = jobs.id AND uploads.what = 'upload') AS pictures,
       EXISTS (SELECT FROM uploads WHERE uploads.job_id = jobs.id AND uploads.what = 'parameters') AS has_texts,
       EXISTS (SELECT FROM attempts WHERE attempts.job_id = jobs.id) AS was_tried
FROM (SELECT DISTINCT pool FROM jobs WHERE state = 'queued' AND finalized_at IS NULL) AS pools,
     LATERAL (SELECT * FROM jobs AS waiting
              WHERE waiting.state = 'queued' AND waiting.finalized_at IS NULL AND waiting.pool = pools.pool
                AND queued_at < now() - $1 * interval '1 second' AND (not_before IS NULL OR not_before <= now())
              ORDER BY queued_at
              LIMIT $2) AS jobs
ORDER BY queued_at

-- name: move
-- A queued job waits for another pool from now on.
UPDATE jobs SET pool = $3, fence = fence + 1, version = version + 1
WHERE id = $1 AND fence = $2 AND state = 'queued'
RETURNING jobs.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s

-- name: queue_ages
-- How long the oldest queued job of each pool waits.
SELECT pool, extract(epoch FROM now() - min(queued_at))::float8 AS oldest_s
FROM jobs
WHERE state = 'queued' AND (not_before IS NULL OR not_before <= now())
GROUP BY pool

-- name: running_of
-- The jobs that a process runs, with their fences.
SELECT id, fence FROM jobs WHERE owner = $1 AND state = 'running'

-- name: forgettable
-- Final jobs whose records have been kept long enough and of which nothing is open, but for those that a hold keeps; those
-- of erased users go otherwise.
DELETE FROM jobs
WHERE id IN (
    SELECT id FROM jobs
    WHERE finalized_at < now() - $1 * interval '1 second' AND erased_by IS NULL AND NOT is_held(user_id)
      AND NOT EXISTS (SELECT FROM attempts WHERE attempts.job_id = jobs.id AND purge_at IS NOT NULL)
      AND NOT EXISTS (SELECT FROM custody
                      WHERE custody.job_id = jobs.id
                        AND (custody.closed_at IS NULL OR (custody.evidence = 'unreadable' AND custody.swept_at IS NULL)))
    LIMIT $2
    FOR UPDATE SKIP LOCKED)
RETURNING id

-- name: snapshot
-- Jobs by state and operation, for the operator's gauges.
SELECT state, operation, pool, count(*) AS jobs,
       coalesce(extract(epoch FROM now() - min(queued_at)), 0)::float8 AS oldest_s
FROM jobs
GROUP BY state, operation, pool

-- name: uploads_alive
-- Uploads of which a copy of ours is still open.
SELECT count(*) AS uploads, coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest_s
FROM jobs
WHERE finalized_at IS NULL AND open_copies > 0
