-- name: link
-- A subject is linked to a user, unless it is linked already, or the user is being erased or is not there.
INSERT INTO links (subject, user_id)
SELECT $1, id FROM users WHERE id = $2 AND erasing_at IS NULL
ON CONFLICT (subject) DO NOTHING
RETURNING user_id

-- name: user_of
-- To whom a subject is linked.
SELECT user_id FROM links WHERE subject = $1

-- name: add_token
-- One more token of the user to whom a subject is linked.
INSERT INTO link_tokens (hash, subject, user_id)
SELECT $2, links.subject, links.user_id
FROM links JOIN users ON users.id = links.user_id
WHERE links.subject = $1 AND users.erasing_at IS NULL
RETURNING user_id

-- name: unlink
-- The link goes, and with it its tokens and the sessions that came of them.
DELETE FROM links WHERE subject = $1 RETURNING user_id

-- name: forget_tokens
-- Tokens that were not seen for long.
DELETE FROM link_tokens WHERE last_seen_on < (now() AT TIME ZONE 'utc' - $1 * interval '1 second')::date
