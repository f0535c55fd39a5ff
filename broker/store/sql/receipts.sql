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

-- name: revision
-- The number of a job's newest receipt; 0 where it has none.
SELECT coalesce(max(revision), 0) AS revision FROM receipts WHERE job_id = $1

-- name: revise
-- The next receipt and what it says of copies at providers; no row when somebody was faster.
WITH receipt AS (
    INSERT INTO receipts (job_id, revision, note) VALUES ($1, $2, $3)
    ON CONFLICT DO NOTHING
    RETURNING job_id
)
UPDATE jobs SET provider_copies = $4, version = version + 1
FROM receipt WHERE jobs.id = receipt.job_id AND jobs.finalized_at IS NOT NULL
RETURNING jobs.id
