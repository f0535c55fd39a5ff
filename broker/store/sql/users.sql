-- name: mint
-- A new anonymous user.
INSERT INTO users (id, token_hash) VALUES ($1, $2)

-- name: find
-- The user who has a token with this hash, the first one or one of a link; last seen is rounded to the day and written once
-- a day.
WITH known AS (
    SELECT id FROM users WHERE token_hash = $1
    UNION ALL
    SELECT user_id FROM link_tokens WHERE hash = $1
), seen AS (
    UPDATE users SET last_seen_on = (now() AT TIME ZONE 'utc')::date
    FROM known WHERE users.id = known.id AND last_seen_on < (now() AT TIME ZONE 'utc')::date
), used AS (
    UPDATE link_tokens SET last_seen_on = (now() AT TIME ZONE 'utc')::date
    WHERE hash = $1 AND last_seen_on < (now() AT TIME ZONE 'utc')::date
)
SELECT id AS user_id, (SELECT breach_id FROM breach_users WHERE user_id = id AND told_at IS NULL LIMIT 1) AS breach
FROM known

-- name: forget_idle
-- Users who were not seen for long and of whom no job is left; a hold keeps them.
DELETE FROM users
WHERE last_seen_on < (now() AT TIME ZONE 'utc' - $1 * interval '1 second')::date
  AND NOT EXISTS (SELECT FROM jobs WHERE jobs.user_id = users.id)
  AND NOT is_held(id)
RETURNING id
