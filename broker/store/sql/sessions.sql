-- name: begin
-- A session ($2) of the user who has this token ($1), for so long ($3) and so long without use ($4), in seconds; of a user's
-- sessions only the newest ($5) stay. Links are asked here and not a process's memory: one that ended begins nothing.
WITH known AS (
    SELECT id AS user_id, NULL::bytea AS subject FROM users WHERE token_hash = $1
    UNION ALL
    SELECT user_id, subject FROM link_tokens WHERE hash = $1
), over AS (
    DELETE FROM sessions WHERE hash IN (SELECT hash FROM sessions JOIN known USING (user_id)
                                        ORDER BY ends_at DESC OFFSET $5 - 1)
)
INSERT INTO sessions (hash, user_id, subject, ends_at, idle_until)
SELECT $2, user_id, subject, now() + $3 * interval '1 second', now() + $4 * interval '1 second' FROM known
RETURNING ends_at

-- name: find
-- The user of a session that has not ended; each use lets it be idle for so long ($2 seconds) again, written once a minute.
-- That its user was seen is written when it begins: it ends within a day, and a user stays for more than one.
WITH used AS (
    UPDATE sessions SET idle_until = now() + $2 * interval '1 second'
    WHERE hash = $1 AND now() < least(ends_at, idle_until)
      AND idle_until < now() + ($2 - 60) * interval '1 second'
)
SELECT user_id,
       (SELECT breach_id FROM breach_users WHERE breach_users.user_id = sessions.user_id AND told_at IS NULL LIMIT 1)
       AS breach
FROM sessions WHERE hash = $1 AND now() < least(ends_at, idle_until)

-- name: end_one
-- One session is over.
DELETE FROM sessions WHERE hash = $1

-- name: end_all
-- All sessions of a user are over.
DELETE FROM sessions WHERE user_id = $1

-- name: forget
-- What ended by itself.
DELETE FROM sessions WHERE least(ends_at, idle_until) <= now()
