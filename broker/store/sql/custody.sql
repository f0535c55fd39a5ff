-- name: open
-- Rows for copies about to be made, only while the job is under this fence: still coming in, or running.
WITH job AS (
    SELECT id FROM jobs WHERE id = $1 AND fence = $2 AND state IN ('receiving', 'running') FOR UPDATE
)
INSERT INTO custody (job_id, domain, holder, what, ref, detail, fence)
SELECT job.id, new.domain, new.holder, new.what, new.ref, new.detail, $2
FROM job, unnest($3::text[], $4::text[], $5::text[], $6::text[], $7::text[]) AS new (domain, holder, what, ref, detail)
RETURNING id

-- name: copies
-- Every copy of a job, oldest first.
SELECT id, job_id, domain, holder, what, ref, detail, provider, fence, opened_at, closed_at, evidence, until,
       EXISTS (SELECT FROM outputs WHERE outputs.job_id = custody.job_id
               AND custody.ref IN (outputs.blob, outputs.thumbnail, encode(outputs.key_id, 'hex'))) AS is_served,
       EXISTS (SELECT FROM outputs WHERE outputs.job_id = custody.job_id AND outputs.is_sealed
               AND custody.ref IN (outputs.blob, outputs.thumbnail)) AS is_sealed
FROM custody WHERE job_id = $1 ORDER BY id

-- name: close_and_list
-- Close copies of a job on evidence, and return every copy of it as it then stands.
WITH closed AS (
    UPDATE custody SET closed_at = now(), evidence = new.evidence
    FROM unnest($2::bigint[], $3::text[]) AS new (id, evidence)
    WHERE custody.id = new.id AND custody.job_id = $1 AND custody.closed_at IS NULL
    RETURNING custody.id, custody.closed_at, custody.evidence
)
SELECT custody.id, job_id, domain, holder, what, ref, detail, provider, fence, opened_at, until,
       coalesce(closed.closed_at, custody.closed_at) AS closed_at,
       coalesce(closed.evidence, custody.evidence) AS evidence,
       EXISTS (SELECT FROM outputs WHERE outputs.job_id = custody.job_id
               AND custody.ref IN (outputs.blob, outputs.thumbnail, encode(outputs.key_id, 'hex'))) AS is_served,
       EXISTS (SELECT FROM outputs WHERE outputs.job_id = custody.job_id AND outputs.is_sealed
               AND custody.ref IN (outputs.blob, outputs.thumbnail)) AS is_sealed
FROM custody LEFT JOIN closed ON closed.id = custody.id
WHERE job_id = $1
ORDER BY custody.id

-- name: close
-- Close copies on evidence; rows that are closed already stay as they are.
UPDATE custody SET closed_at = now(), evidence = new.evidence
FROM unnest($1::bigint[], $2::text[]) AS new (id, evidence)
WHERE custody.id = new.id AND custody.closed_at IS NULL

-- name: release
-- A process has let go of a job's upload. The job is locked first, as every verb of the job store does.
WITH job AS (
    SELECT id FROM jobs WHERE id = $1 FOR UPDATE
)
UPDATE custody SET closed_at = now(), evidence = $3
FROM job
WHERE custody.job_id = job.id AND holder = 'process' AND ref = $2 AND fence = $4 AND closed_at IS NULL

-- name: ended_holders
-- Which of these processes can no longer hold anything, their lease having ended the grace time ago.
SELECT named.id::text AS ref
FROM unnest($1::uuid[]) AS named (id) LEFT JOIN processes ON processes.id = named.id
WHERE processes.id IS NULL OR processes.lease_until < now() - $2 * interval '1 second'

-- name: held_by
-- What a process holds as far as we know, apart from what was opened a moment ago.
SELECT job_id, fence FROM custody
WHERE holder = 'process' AND ref = $1::uuid::text AND closed_at IS NULL
  AND opened_at < now() - $2 * interval '1 second'
UNION
SELECT id, fence FROM jobs
WHERE owner = $1 AND state = 'running' AND started_at < now() - $2 * interval '1 second'

-- name: stray_outputs
-- Final jobs with output copies that are past their time; in no order, so that a few that cannot be destroyed block none.
-- Where outputs have no end of their own, they end with their user, who was not seen for long.
SELECT job_id
FROM (SELECT DISTINCT custody.job_id
      FROM custody JOIN jobs ON jobs.id = custody.job_id JOIN users ON users.id = jobs.user_id
      WHERE custody.closed_at IS NULL AND custody.what = 'output' AND custody.domain = 'ours'
        AND jobs.finalized_at IS NOT NULL
        AND (jobs.outputs_until < now()
             OR (jobs.outputs_until IS NULL
                 AND users.last_seen_on < (now() AT TIME ZONE 'utc' - $2 * interval '1 second')::date))) AS stray
ORDER BY random()
LIMIT $1

-- name: uploads
-- What a job was given: at -1 what was typed, then its pictures in order. Which keyholder has a key stands in custody,
-- behind 32 digits of its incarnation.
SELECT n, uploads.what, blob, key_id, incarnation, media_type, size_bytes,
       coalesce(substr(custody.detail, 34), '') AS keyholder
FROM uploads LEFT JOIN custody ON custody.job_id = uploads.job_id AND custody.holder = 'key'
                              AND custody.ref = encode(uploads.key_id, 'hex')
WHERE uploads.job_id = $1
ORDER BY n

-- name: outputs
-- The outputs of a job.
SELECT n, blob, key_id, keyholder, incarnation, media_type, size_bytes, width, height, destroyed_at, destroy_at,
       is_sealed, thumbnail, thumbnail_bytes,
       destroyed_at IS NOT NULL OR coalesce(destroy_at <= now(), false) AS is_gone
FROM outputs WHERE job_id = $1 ORDER BY n

-- name: unreadable
-- Blobs whose store was silent when they were to be deleted, and that may still lie there.
SELECT id, ref FROM custody
WHERE evidence = 'unreadable' AND swept_at IS NULL
ORDER BY random()
LIMIT $1

-- name: swept
-- An unreadable blob was deleted after all.
UPDATE custody SET swept_at = now() WHERE id = $1 AND swept_at IS NULL

-- name: output_lost
-- An output that cannot be opened before its time is up is not charged; no row when it was destroyed as it should be.
UPDATE jobs SET charged = false, version = version + 1
WHERE id = $1 AND charged AND coalesce(outputs_until > now(), true)
  AND EXISTS (SELECT FROM outputs WHERE job_id = $1 AND n = $2 AND destroyed_at IS NULL)
RETURNING id
