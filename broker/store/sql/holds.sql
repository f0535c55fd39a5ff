-- name: propose
-- A hold that another operator has so long ($5 seconds) to confirm.
INSERT INTO holds (id, user_id, reference, proposed_by, confirm_by)
VALUES ($1, $2, $3, $4, now() + $5 * interval '1 second')
RETURNING *, confirm_by < now() AS is_late

-- name: confirm
-- The second operator's word: from now on it is in force. No row where it is the same operator, too late, or done.
UPDATE holds SET confirmed_by = $2, confirmed_at = now()
WHERE id = $1 AND confirmed_at IS NULL AND ended_at IS NULL AND confirm_by > now() AND proposed_by <> $2
RETURNING *, confirm_by < now() AS is_late

-- name: end
-- It ends, and an erasure that waited for it goes on; ended already, it stays as it is.
WITH ended AS (
    UPDATE holds SET ended_by = $2, ended_at = now() WHERE id = $1 AND ended_at IS NULL RETURNING user_id
)
UPDATE requests SET resume_at = now() FROM ended WHERE requests.user_id = ended.user_id AND completed_at IS NULL

-- name: find
-- One hold.
SELECT *, confirm_by < now() AS is_late FROM holds WHERE id = $1

-- name: all
-- Every hold, newest first.
SELECT *, confirm_by < now() AS is_late FROM holds ORDER BY proposed_at DESC, id LIMIT $1

-- name: in_force
-- The holds that keep a user's records now.
SELECT *, confirm_by < now() AS is_late FROM holds WHERE user_id = $1 AND confirmed_at IS NOT NULL AND ended_at IS NULL ORDER BY confirmed_at, id
