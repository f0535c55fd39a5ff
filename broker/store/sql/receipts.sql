-- name: latest
-- The newest receipt of a job.
SELECT note FROM receipts WHERE job_id = $1 ORDER BY revision DESC LIMIT 1

-- name: key_used
-- Remember a verification key for as long as receipts signed with it may be shown.
INSERT INTO receipt_keys (vkey) VALUES ($1)
ON CONFLICT (vkey) DO UPDATE SET last_used_at = now()

-- name: keys
-- Every verification key, the current one first.
SELECT vkey, first_used_at, last_used_at FROM receipt_keys ORDER BY last_used_at DESC
