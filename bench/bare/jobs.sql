-- name: insert
-- The upload is stored: its job is queued, and known from here on. No row when its id is taken.
WITH job AS (
    INSERT INTO jobs (id, public_id, user_id, operation, parameters, profile, pool, state, media_type, upload_bytes,
                      fingerprint, queued_at, start_by, finish_by)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'queued', $8, $9, $10, now(),
            now() + $11 * interval '1 second', now() + $12 * interval '1 second')
    ON CONFLICT (user_id, public_id) DO NOTHING
    RETURNING *
), kept AS (
    INSERT INTO uploads (job_id, n, what, blob, key_id, incarnation, media_type, size_bytes)
    SELECT job.id, new.n, new.what, new.blob, new.key_id, new.incarnation, new.media_type, new.size_bytes
    FROM job, unnest($13::int[], $14::text[], $15::text[], $16::bytea[], $17::bytea[], $18::text[], $19::bigint[])
              AS new (n, what, blob, key_id, incarnation, media_type, size_bytes)
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: claim
-- One winner: a new fence and an owner with a live lease.
UPDATE jobs SET state = 'running', owner = $2, fence = fence + 1, version = version + 1, attempts = attempts + 1,
                started_at = coalesce(started_at, now())
WHERE id = $1 AND state = 'queued' AND (started_at IS NOT NULL OR start_by > now()) AND finish_by > now()
  AND (not_before IS NULL OR not_before <= now())
  AND EXISTS (SELECT FROM processes WHERE processes.id = $2 AND lease_until > now())
RETURNING *, extract(epoch FROM finish_by - now())::float8 AS finish_within_s

-- name: finish
-- The one write that finishes a job: its state, and where its outputs are.
WITH job AS (
    UPDATE jobs SET state = $3, outcome = $3, code = $4, decided_at = now(), finalized_at = now(), owner = NULL,
                    fence = fence + 1, version = version + 1, charged = ($3 = 'succeeded'),
                    progress = CASE WHEN $3 = 'succeeded' THEN 1 ELSE progress END,
                    outputs_until = now() + $5 * interval '1 second'
    WHERE id = $1 AND fence = $2 AND state IN ('queued', 'running')
    RETURNING *
), made AS (
    INSERT INTO outputs (job_id, n, blob, key_id, keyholder, incarnation, media_type, size_bytes, width, height,
                         is_sealed, thumbnail, thumbnail_bytes)
    SELECT job.id, new.n, new.blob, new.key_id, new.keyholder, new.incarnation, new.media_type, new.size_bytes,
           new.width, new.height, new.is_sealed, new.thumbnail, new.thumbnail_bytes
    FROM job, unnest($6::int[], $7::text[], $8::bytea[], $9::text[], $10::bytea[], $11::text[], $12::bigint[],
                     $13::int[], $14::int[], $15::boolean[], $16::text[], $17::bigint[])
              AS new (n, blob, key_id, keyholder, incarnation, media_type, size_bytes, width, height,
                      is_sealed, thumbnail, thumbnail_bytes)
)
SELECT job.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s FROM job

-- name: uploads
-- What a job was given; its keys are where the caller says.
SELECT n, what, blob, key_id, incarnation, media_type, size_bytes, $2::text AS keyholder
FROM uploads WHERE job_id = $1 ORDER BY n
