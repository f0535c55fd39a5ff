-- name: declare
-- A breach, and everybody whom it concerns: all users, or those of whom there were jobs, or anything was done, in a time.
WITH concerned AS (
    SELECT id FROM users
    WHERE $5::timestamptz IS NULL
       OR EXISTS (SELECT FROM jobs WHERE jobs.user_id = users.id AND jobs.created_at < $6
                                     AND coalesce(jobs.finalized_at, now()) >= $5)
       OR EXISTS (SELECT FROM audit_events WHERE audit_events.pseudonym = users.pseudonym AND at >= $5 AND at < $6)
), breach AS (
    INSERT INTO breaches (id, operator, aware_at, facts, since, until, concerned)
    SELECT $1, $2, $3, $4, $5, $6, count(*) FROM concerned
    RETURNING *
), noted AS (
    INSERT INTO breach_users (user_id, breach_id) SELECT concerned.id, $1 FROM concerned
)
SELECT *, 0 AS told FROM breach

-- name: find
-- One breach, and to how many of those who are still there it was shown.
SELECT *, (SELECT count(*) FROM breach_users WHERE breach_id = breaches.id AND told_at IS NOT NULL) AS told
FROM breaches WHERE id = $1

-- name: of_user
-- Breaches that concern a user, newest first.
SELECT breaches.*, 0 AS told FROM breaches JOIN breach_users ON breach_id = breaches.id
WHERE user_id = $1 ORDER BY declared_at DESC, id

-- name: told
-- The app was given some of what concerns its user.
UPDATE breach_users SET told_at = now() WHERE user_id = $1 AND told_at IS NULL AND breach_id = ANY ($2)
