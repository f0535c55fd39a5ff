-- name: delivered
-- An output was sent to its end: from now on it has the grace time left. Delivered again, it has no longer.
UPDATE outputs SET destroy_at = now() + $3 * interval '1 second'
WHERE job_id = $1 AND n = $2 AND destroy_at IS NULL AND destroyed_at IS NULL

-- name: doom
-- From now on an output of a final job, or each of them, is not served any more, whoever gets around to destroying it;
-- what opened it for devices is deleted.
WITH doomed AS (
    UPDATE outputs SET destroy_at = least(destroy_at, now())
    WHERE job_id = $1 AND ($2::int IS NULL OR n = $2) AND destroyed_at IS NULL
    RETURNING job_id, n
)
DELETE FROM output_keys USING doomed WHERE output_keys.job_id = doomed.job_id AND output_keys.n = doomed.n

-- name: doom_all
-- The same of every output that a user has.
WITH doomed AS (
    UPDATE outputs SET destroy_at = least(destroy_at, now())
    FROM jobs
    WHERE jobs.id = outputs.job_id AND jobs.user_id = $1 AND jobs.state = 'succeeded' AND outputs.destroyed_at IS NULL
    RETURNING outputs.job_id, outputs.n
), closed AS (
    DELETE FROM output_keys USING doomed WHERE output_keys.job_id = doomed.job_id AND output_keys.n = doomed.n
)
SELECT job_id, n FROM doomed

-- name: destroyed
-- Mark an output of a job, or each of them, as destroyed, and tell whoever watches the job.
WITH gone AS (
    UPDATE outputs SET destroyed_at = now()
    WHERE job_id = $1 AND ($2::int IS NULL OR n = $2) AND destroyed_at IS NULL
    RETURNING n
), left_over AS (
    SELECT count(*) AS outputs FROM outputs
    WHERE job_id = $1 AND destroyed_at IS NULL AND n NOT IN (SELECT n FROM gone)
)
UPDATE jobs SET version = version + 1,
                outputs_until = CASE WHEN left_over.outputs = 0 THEN least(outputs_until, now()) ELSE outputs_until END
FROM left_over
WHERE id = $1 AND EXISTS (SELECT FROM gone)

-- name: due
-- Outputs past a time of their own; in no order, so that a few that cannot be destroyed block none.
SELECT job_id, n FROM outputs
WHERE destroyed_at IS NULL AND destroy_at <= now()
ORDER BY random()
LIMIT $1

-- name: gallery
-- What a user can fetch, newest first, before a position (finalized_at, public_id, n); with what opens it on one device.
SELECT jobs.public_id AS job_id, jobs.operation, jobs.finalized_at, jobs.outputs_until, outputs.destroy_at,
       outputs.n, outputs.media_type, outputs.size_bytes, outputs.width, outputs.height,
       outputs.is_sealed, outputs.thumbnail_bytes, output_keys.wrapped
FROM jobs JOIN outputs ON outputs.job_id = jobs.id
     LEFT JOIN output_keys ON output_keys.job_id = jobs.id AND output_keys.n = outputs.n
                          AND output_keys.device_id = $6::uuid
WHERE jobs.user_id = $1 AND jobs.state = 'succeeded' AND outputs.destroyed_at IS NULL
  AND (outputs.destroy_at IS NULL OR outputs.destroy_at > now())
  AND ($2::timestamptz IS NULL OR (jobs.finalized_at, jobs.public_id, outputs.n) < ($2, $3, $4))
ORDER BY jobs.finalized_at DESC, jobs.public_id DESC, outputs.n DESC
LIMIT $5

-- name: keys
-- What opens an output, device by device.
SELECT device_id, devices.kem, wrapped
FROM output_keys JOIN devices ON devices.id = output_keys.device_id
WHERE job_id = $1 AND n = $2
ORDER BY device_id

-- name: add_key
-- What opens an output on one more device of the same user, as long as the output is served. What is there stays: whoever
-- comes second, or sends what does not open, takes nothing away.
WITH output AS (
    SELECT outputs.job_id, outputs.n, jobs.user_id
    FROM outputs JOIN jobs ON jobs.id = outputs.job_id
    WHERE outputs.job_id = $1 AND outputs.n = $2 AND outputs.is_sealed AND outputs.destroyed_at IS NULL
      AND (outputs.destroy_at IS NULL OR outputs.destroy_at > now())
    FOR SHARE OF outputs
), device AS (
    SELECT devices.id FROM devices JOIN output ON output.user_id = devices.user_id
    WHERE devices.id = $3
    FOR KEY SHARE OF devices
)
INSERT INTO output_keys (job_id, n, device_id, wrapped)
SELECT output.job_id, output.n, device.id, $4 FROM output, device
ON CONFLICT (job_id, n, device_id) DO NOTHING

-- name: missing
-- Sealed outputs that a device cannot open yet, newest first, before a position.
SELECT jobs.public_id AS job_id, jobs.finalized_at, outputs.n
FROM jobs JOIN outputs ON outputs.job_id = jobs.id
WHERE jobs.user_id = $1 AND jobs.state = 'succeeded' AND outputs.is_sealed AND outputs.destroyed_at IS NULL
  AND (outputs.destroy_at IS NULL OR outputs.destroy_at > now())
  AND ($2::timestamptz IS NULL OR (jobs.finalized_at, jobs.public_id, outputs.n) < ($2, $3, $4))
  AND NOT EXISTS (SELECT FROM output_keys
                  WHERE output_keys.job_id = jobs.id AND output_keys.n = outputs.n AND output_keys.device_id = $6)
ORDER BY jobs.finalized_at DESC, jobs.public_id DESC, outputs.n DESC
LIMIT $5
