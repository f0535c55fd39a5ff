-- name: due
-- Notifications of final jobs whose turn it is go to the caller, who has so long ($2) before somebody else tries. What a
-- user has switched off, or an erased user would have, is given to the caller too: to be destroyed.
WITH due AS (
    SELECT notifications.id
    FROM notifications JOIN jobs ON jobs.id = notifications.job_id
    WHERE jobs.finalized_at IS NOT NULL AND due_at <= now() AND channel = ANY($1)
    ORDER BY due_at
    LIMIT $3
    FOR UPDATE OF notifications SKIP LOCKED
)
UPDATE notifications SET due_at = now() + $2 * interval '1 second', tries = tries + 1
FROM due, jobs LEFT JOIN users ON users.id = jobs.user_id
WHERE notifications.id = due.id AND jobs.id = notifications.job_id
RETURNING notifications.id, notifications.job_id, channel, target, tries, jobs.public_id, jobs.state, jobs.finalized_at,
          jobs.user_id,
          CASE WHEN users.id IS NULL OR users.erasing_at IS NOT NULL THEN ARRAY['webhook', 'push'] ELSE users.muted END
          AS muted

-- name: postpone
-- It is tried again in so long.
UPDATE notifications SET due_at = now() + $2 * interval '1 second' WHERE id = $1

-- name: destroy
-- It was sent, or never will be.
DELETE FROM notifications WHERE id = $1

-- name: forget
-- What is past its time, whatever became of its job.
DELETE FROM notifications WHERE created_at < now() - $1 * interval '1 second' RETURNING id

-- name: muted
-- What a user has switched off.
SELECT muted FROM users WHERE id = $1

-- name: mute
-- A user switches kinds ($2) off, and all others on; what waits to be sent by channels ($3) that are off is destroyed.
WITH gone AS (
    DELETE FROM notifications USING jobs
    WHERE jobs.id = notifications.job_id AND jobs.user_id = $1 AND channel = ANY($3)
)
UPDATE users SET muted = $2 WHERE id = $1 RETURNING muted
