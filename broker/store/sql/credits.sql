-- name: grant
-- More credits for a user, once per reference; no row where the reference was granted before.
WITH account AS (
    INSERT INTO accounts (user_id) VALUES ($1) ON CONFLICT (user_id) DO NOTHING
)
INSERT INTO credit_entries (user_id, kind, credits, reference) VALUES ($1, 'granted', $2, $3)
ON CONFLICT (user_id, reference) DO NOTHING
RETURNING id

-- name: get
-- An account; no row where nothing was ever granted.
SELECT credits, held FROM accounts WHERE user_id = $1

-- name: entries
-- The newest entries of an account, with the id by which their user knows the job.
SELECT entry.kind, entry.credits, entry.at, entry.reference, jobs.public_id AS job
FROM credit_entries AS entry LEFT JOIN jobs ON jobs.id = entry.job_id
WHERE entry.user_id = $1
ORDER BY entry.id DESC
LIMIT $2

-- name: redeem
-- The credits of a purchase ($4) that nobody has redeemed yet; no row where somebody has.
WITH fresh AS (
    INSERT INTO purchases (digest) VALUES ($4) ON CONFLICT (digest) DO NOTHING RETURNING digest
), account AS (
    INSERT INTO accounts (user_id) SELECT $1 FROM fresh ON CONFLICT (user_id) DO NOTHING
)
INSERT INTO credit_entries (user_id, kind, credits, reference) SELECT $1, 'granted', $2, $3 FROM fresh
RETURNING id

-- name: has
-- Whether a user was granted something under this reference.
SELECT id FROM credit_entries WHERE user_id = $1 AND reference = $2

-- name: forget_purchases
-- Digests of purchases that are too old to be redeemed again.
DELETE FROM purchases WHERE redeemed_on < (now() AT TIME ZONE 'utc' - $1 * interval '1 second')::date
