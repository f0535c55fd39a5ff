-- name: lock_owner
-- Whoever adds a device waits for whoever else adds one to the same user.
SELECT id FROM users WHERE id = $1 FOR NO KEY UPDATE

-- name: find_key
-- The device of a user that has this key.
SELECT id, kem, public_key, created_on FROM devices WHERE user_id = $1 AND public_key = $2

-- name: add
-- A device, unless its user has enough of them.
INSERT INTO devices (id, user_id, kem, public_key)
SELECT $1, $2, $3, $4
WHERE (SELECT count(*) FROM devices WHERE user_id = $2) < $5
RETURNING id, kem, public_key, created_on

-- name: of_user
-- A user's devices, oldest first.
SELECT id, kem, public_key, created_on FROM devices WHERE user_id = $1 ORDER BY created_on, id

-- name: delete
-- A device of a user, and with it every key that was wrapped to it.
DELETE FROM devices WHERE user_id = $1 AND id = $2 RETURNING id
