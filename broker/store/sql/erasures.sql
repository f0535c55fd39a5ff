-- name: mark
-- From here on the user gets nothing new done. No row where the user is no more.
UPDATE users SET erasing_at = coalesce(erasing_at, now()) WHERE id = $1 RETURNING id

-- name: begin
-- The request of a user who is marked. Asked again, also with another token, it is the one that is open, and the caller has
-- so long ($5) before somebody else goes on with it.
INSERT INTO requests (id, user_id, kind, status, expected_by, answer_by, resume_at, ground, operator)
VALUES (coalesce((SELECT id FROM requests
                  WHERE user_id = $2 AND kind = 'erasure' AND completed_at IS NULL LIMIT 1), $1),
        $2, 'erasure', 'in_progress', now() + $3 * interval '1 second', now() + $4 * interval '1 day',
        now() + $5 * interval '1 second', $6, $7)
ON CONFLICT (id) DO UPDATE SET resume_at = excluded.resume_at WHERE requests.completed_at IS NULL
RETURNING *

-- name: forget_devices
-- Nothing is sealed to a user's devices any more; also where a hold keeps the user's records.
DELETE FROM devices WHERE user_id = $1

-- name: due
-- Open requests whose time to go on has come go to the caller, who has so long.
UPDATE requests SET resume_at = now() + $1 * interval '1 second'
WHERE id IN (SELECT id FROM requests
             WHERE completed_at IS NULL AND resume_at < now()
             ORDER BY resume_at
             LIMIT $2
             FOR UPDATE SKIP LOCKED)
RETURNING *

-- name: live
-- A user's jobs that are not final yet.
SELECT jobs.*, extract(epoch FROM finish_by - now())::float8 AS finish_within_s
FROM jobs WHERE user_id = $1 AND finalized_at IS NULL
LIMIT $2

-- name: open_outputs
-- Every open copy of the outputs of some of a user's final jobs; a job's copies come all together, or not at all.
SELECT id, job_id, domain, holder, what, ref, detail, provider, fence, opened_at, closed_at, evidence, until,
       true AS is_served,
       EXISTS (SELECT FROM outputs WHERE outputs.job_id = custody.job_id AND outputs.is_sealed
               AND custody.ref IN (outputs.blob, outputs.thumbnail)) AS is_sealed
FROM custody
WHERE closed_at IS NULL AND domain = 'ours'
  AND job_id IN (SELECT jobs.id FROM jobs
                 WHERE user_id = $1 AND finalized_at IS NOT NULL AND jobs.id <> ALL ($3::uuid[])
                   AND EXISTS (SELECT FROM custody AS still
                               WHERE still.job_id = jobs.id AND still.closed_at IS NULL AND still.domain = 'ours')
                 LIMIT $2)

-- name: outputs_destroyed
-- Mark the outputs of jobs as destroyed.
WITH gone AS (
    UPDATE outputs SET destroyed_at = now() WHERE job_id = ANY($1) AND destroyed_at IS NULL RETURNING job_id
)
UPDATE jobs SET version = version + 1, outputs_until = least(outputs_until, now())
WHERE id IN (SELECT job_id FROM gone)

-- name: release
-- Delete jobs ($3 at most) of which nothing is left to destroy, here or at a provider; keep what is known of copies there,
-- and return the newest receipts. A job whose next receipt is still to be signed is not yet deleted.
WITH doomed AS (
    SELECT id FROM jobs
    WHERE ((user_id = $1 AND NOT is_held($1)) OR erased_by = $2) AND finalized_at IS NOT NULL
      AND (provider_copies <> 'pending' OR finalized_at < now() - interval '2 days')
      AND NOT EXISTS (SELECT FROM attempts WHERE attempts.job_id = jobs.id AND purge_at IS NOT NULL)
      AND NOT EXISTS (SELECT FROM custody
                      WHERE custody.job_id = jobs.id
                        AND (custody.closed_at IS NULL OR (custody.evidence = 'unreadable' AND custody.swept_at IS NULL)))
    ORDER BY id
    LIMIT $3
    FOR UPDATE
), copies AS (
    INSERT INTO request_copies (request_id, provider, evidence, copies, until)
    SELECT $2, provider, evidence, count(*), max(until)
    FROM custody JOIN doomed ON doomed.id = custody.job_id
    WHERE domain = 'provider'
    GROUP BY provider, evidence
    ON CONFLICT (request_id, provider, evidence)
    DO UPDATE SET copies = request_copies.copies + excluded.copies,
                  until = greatest(request_copies.until, excluded.until)
), notes AS (
    SELECT DISTINCT ON (job_id) job_id, note FROM receipts JOIN doomed ON doomed.id = receipts.job_id
    ORDER BY job_id, revision DESC
), gone AS (
    DELETE FROM jobs USING doomed WHERE jobs.id = doomed.id RETURNING jobs.id
)
SELECT gone.id, notes.note FROM gone LEFT JOIN notes ON notes.job_id = gone.id

-- name: detach
-- Jobs ($3 at most) of which nothing of ours can be opened, but a provider has still to be asked, or ciphertext lies in a
-- store that was silent, go on without their user, and with no more than that takes; return their newest receipts.
WITH kept AS (
    SELECT id FROM jobs
    WHERE user_id = $1 AND finalized_at IS NOT NULL AND NOT is_held($1)
      AND NOT EXISTS (SELECT FROM custody
                      WHERE custody.job_id = jobs.id AND custody.domain = 'ours' AND custody.closed_at IS NULL)
    ORDER BY id
    LIMIT $3
    FOR UPDATE
), notes AS (
    SELECT DISTINCT ON (job_id) job_id, note FROM receipts JOIN kept ON kept.id = receipts.job_id
    ORDER BY job_id, revision DESC
), told AS (
    DELETE FROM notifications USING kept WHERE notifications.job_id = kept.id
), made AS (
    DELETE FROM outputs USING kept WHERE outputs.job_id = kept.id
), given AS (
    DELETE FROM uploads USING kept WHERE uploads.job_id = kept.id
), detached AS (
    UPDATE jobs SET user_id = NULL, erased_by = $2, parameters = '{}', fingerprint = '', media_type = '',
                    upload_bytes = 0, version = version + 1
    FROM kept WHERE jobs.id = kept.id
    RETURNING jobs.id
)
SELECT detached.id, notes.note FROM detached LEFT JOIN notes ON notes.job_id = detached.id

-- name: delete_user
-- The user goes, with all that only a user keeps, once no job is left.
WITH gone AS (
    DELETE FROM users
    WHERE id = $1 AND erasing_at IS NOT NULL AND NOT EXISTS (SELECT FROM jobs WHERE user_id = $1) AND NOT is_held($1)
    RETURNING id
), others AS (
    DELETE FROM requests USING gone WHERE requests.user_id = gone.id AND requests.id <> $2
)
SELECT id FROM gone

-- name: note_progress
-- How an erasure stands: all of ours gone, all of it gone, or when to go on ($2 seconds; $3 where only a provider is left).
WITH left_over AS (
    SELECT count(*) AS jobs,
           count(*) FILTER (WHERE EXISTS (SELECT FROM custody
                                          WHERE custody.job_id = jobs.id AND custody.evidence = 'unreadable'
                                            AND custody.swept_at IS NULL)) AS unreadable,
           (SELECT max(purge_until) FROM attempts JOIN jobs AS owner ON owner.id = attempts.job_id
            WHERE owner.erased_by = $1) AS purge_until
    FROM jobs WHERE erased_by = $1
)
UPDATE requests
SET destroyed_at = CASE WHEN user_id IS NULL AND unreadable = 0 THEN coalesce(destroyed_at, now()) END,
    completed_at = CASE WHEN user_id IS NULL AND jobs = 0 THEN now() END,
    status = CASE WHEN user_id IS NULL AND jobs = 0 THEN 'completed' ELSE 'in_progress' END,
    resume_at = CASE WHEN user_id IS NULL AND jobs = 0 THEN NULL
                     WHEN user_id IS NULL AND unreadable = 0 THEN now() + $3 * interval '1 second'
                     WHEN is_held(user_id) THEN now() + interval '1 hour'  -- or when the hold ends
                     ELSE now() + $2 * interval '1 second' END,
    expected_by = greatest(expected_by, purge_until)
FROM left_over
WHERE id = $1 AND completed_at IS NULL
