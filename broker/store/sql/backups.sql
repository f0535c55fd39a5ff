-- name: version
-- The server's major version.
SELECT current_setting('server_version_num')::int / 10000 AS major

-- name: tables
-- How many tables there are already.
SELECT count(*) AS tables FROM pg_tables WHERE schemaname = 'public'

-- name: erase_again
-- Users whose ids have these digests were erased after the backup was made: their tokens open nothing from this write on,
-- and whichever process runs next erases what came back of them. A hold on them had ended, or came too late.
WITH back AS (
    UPDATE users SET erasing_at = coalesce(erasing_at, now()),
                     token_hash = sha256(convert_to(gen_random_uuid()::text || gen_random_uuid()::text, 'UTF8'))
    WHERE encode(sha256(convert_to(id, 'UTF8')), 'hex') = ANY ($1::text[])
    RETURNING id
), released AS (
    UPDATE holds SET ended_by = 'restore', ended_at = now() FROM back
    WHERE holds.user_id = back.id AND holds.ended_at IS NULL
)
INSERT INTO requests (id, user_id, kind, status, expected_by, answer_by, resume_at)
SELECT gen_random_uuid(), id, 'erasure', 'in_progress', now() + interval '1 minute', now() + interval '1 day', now()
FROM back
RETURNING id

-- name: withdraw_all
-- Nobody knows who withdrew what after the backup was made: everything that was given is, and users are asked again.
WITH last AS (
    SELECT DISTINCT ON (user_id, purpose) user_id, notice, purpose, event FROM consents
    ORDER BY user_id, purpose, number DESC
)
INSERT INTO consents (user_id, notice, purpose, event, method)
SELECT user_id, notice, purpose, 'withdrawn', 'operator' FROM last WHERE event = 'given'

-- name: restored
-- A restore is an operation on sensitive data too.
INSERT INTO audit_events (event, detail) VALUES ('backup_restored', $1)
