-- name: delivered
-- An output was sent to its end: from now on it has the grace time left. Delivered again, it has no longer.
UPDATE outputs SET destroy_at = now() + $3 * interval '1 second'
WHERE job_id = $1 AND n = $2 AND destroy_at IS NULL AND destroyed_at IS NULL

-- name: doom
-- From now on an output of a final job, or each of them, is not served any more, whoever gets around to destroying it.
UPDATE outputs SET destroy_at = least(destroy_at, now())
WHERE job_id = $1 AND ($2::int IS NULL OR n = $2) AND destroyed_at IS NULL

-- name: doom_all
-- The same of every output that a user has.
UPDATE outputs SET destroy_at = least(destroy_at, now())
FROM jobs
WHERE jobs.id = outputs.job_id AND jobs.user_id = $1 AND jobs.state = 'succeeded' AND outputs.destroyed_at IS NULL
RETURNING outputs.job_id, outputs.n

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
-- What a user can fetch, newest first, before a position (finalized_at, public_id, n).
SELECT jobs.public_id AS job_id, jobs.operation, jobs.finalized_at, jobs.outputs_until, outputs.destroy_at,
       outputs.n, outputs.media_type, outputs.size_bytes, outputs.width, outputs.height
FROM jobs JOIN outputs ON outputs.job_id = jobs.id
WHERE jobs.user_id = $1 AND jobs.state = 'succeeded' AND outputs.destroyed_at IS NULL
  AND (outputs.destroy_at IS NULL OR outputs.destroy_at > now())
  AND ($2::timestamptz IS NULL OR (jobs.finalized_at, jobs.public_id, outputs.n) < ($2, $3, $4))
ORDER BY jobs.finalized_at DESC, jobs.public_id DESC, outputs.n DESC
LIMIT $5
