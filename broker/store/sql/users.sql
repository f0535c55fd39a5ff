-- name: mint
-- A new anonymous user.
INSERT INTO users (id, token_hash) VALUES ($1, $2)

-- name: find
-- The user whose token has this hash; last seen is rounded to the day and written once a day.
WITH seen AS (
    UPDATE users SET last_seen_on = (now() AT TIME ZONE 'utc')::date
    WHERE token_hash = $1 AND last_seen_on < (now() AT TIME ZONE 'utc')::date
)
SELECT id AS user_id,
       (SELECT breach_id FROM breach_users WHERE user_id = users.id AND told_at IS NULL LIMIT 1) AS breach
FROM users WHERE token_hash = $1

-- name: forget_idle
-- Users who were not seen for long and of whom no job is left; a hold keeps them.
DELETE FROM users
WHERE last_seen_on < (now() AT TIME ZONE 'utc' - $1 * interval '1 second')::date
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.user_id = users.id)
  AND NOT is_held(id)
RETURNING id
