-- name: counts
-- How much there is about a user, a line for each kind of thing.
SELECT 'outputs' AS held, count(*) FROM outputs JOIN jobs ON jobs.id = outputs.job_id
WHERE jobs.user_id = $1 AND outputs.destroyed_at IS NULL
UNION ALL
SELECT 'receipts', count(*) FROM receipts JOIN jobs ON jobs.id = receipts.job_id WHERE jobs.user_id = $1
UNION ALL
SELECT 'consents', count(*) FROM consents WHERE user_id = $1
UNION ALL
SELECT 'devices', count(*) FROM devices WHERE user_id = $1
UNION ALL
SELECT 'credit_entries', count(*) FROM credit_entries WHERE user_id = $1
UNION ALL
SELECT 'links', count(*) FROM links WHERE user_id = $1
UNION ALL
SELECT 'link_tokens', count(*) FROM link_tokens WHERE user_id = $1
UNION ALL
SELECT 'sessions', count(*) FROM sessions WHERE user_id = $1
UNION ALL
SELECT 'requests', count(*) FROM requests WHERE user_id = $1
UNION ALL
SELECT 'holds', count(*) FROM holds WHERE user_id = $1
UNION ALL
SELECT 'breach_users', count(*) FROM breach_users WHERE user_id = $1
UNION ALL
SELECT 'audit_events', count(*) FROM audit_events JOIN users ON users.subject = audit_events.subject WHERE users.id = $1
UNION ALL
SELECT 'notifications', count(*) FROM notifications JOIN jobs ON jobs.id = notifications.job_id
WHERE jobs.user_id = $1

-- name: job_states
-- How many jobs of a user stand where.
SELECT state, count(*) AS jobs FROM jobs WHERE user_id = $1 GROUP BY state ORDER BY state

-- name: user
-- The user: what counts is read anew each time.
SELECT id, created_on, last_seen_on, muted, restricted_at, erasing_at FROM users WHERE id = $1

-- name: accounts
-- A user's account, where there is one: rows from the $2th on, $3 at most, as everywhere below.
SELECT credits, held FROM accounts WHERE user_id = $1 OFFSET $2 LIMIT $3

-- name: credit_entries
-- What became of a user's credits, oldest first.
SELECT entry.id, entry.kind, entry.credits, entry.reference, entry.at, jobs.public_id AS job
FROM credit_entries AS entry LEFT JOIN jobs ON jobs.id = entry.job_id
WHERE entry.user_id = $1
ORDER BY entry.id OFFSET $2 LIMIT $3

-- name: consents
-- What a user gave and withdrew, oldest first.
SELECT number, id, notice, purpose, event, stated_age, method, at
FROM consents WHERE user_id = $1 ORDER BY number OFFSET $2 LIMIT $3

-- name: devices
-- The public keys that a user's devices made.
SELECT id, kem, public_key, created_on FROM devices WHERE user_id = $1 ORDER BY id OFFSET $2 LIMIT $3

-- name: links
-- Since when sign-ins of the app reach a user.
SELECT created_on FROM links WHERE user_id = $1 ORDER BY created_on, subject OFFSET $2 LIMIT $3

-- name: link_tokens
-- Tokens of further devices.
SELECT created_on, last_seen_on FROM link_tokens WHERE user_id = $1 ORDER BY created_on, hash OFFSET $2 LIMIT $3

-- name: sessions
-- Browsers that are let in, or were until lately.
SELECT ends_at, idle_until FROM sessions WHERE user_id = $1 ORDER BY ends_at, hash OFFSET $2 LIMIT $3

-- name: requests
-- What a user asked for by right, oldest first.
SELECT id, kind, status, ground, received_at, expected_by, answer_by, destroyed_at, completed_at, resume_at
FROM requests WHERE user_id = $1 ORDER BY received_at, id OFFSET $2 LIMIT $3

-- name: holds
-- Legal holds on a user's records, oldest first: proposed, in force and ended.
SELECT id, reference, proposed_at, confirm_by, confirmed_at, ended_at
FROM holds WHERE user_id = $1 ORDER BY proposed_at, id OFFSET $2 LIMIT $3

-- name: breach_users
-- Breaches that concern a user, and when the app was told.
SELECT breach_id, breach.declared_at, told_at
FROM breach_users JOIN breaches AS breach ON breach.id = breach_id
WHERE user_id = $1 ORDER BY breach.declared_at, breach_id OFFSET $2 LIMIT $3

-- name: audit_events
-- What was done to a user's data, oldest first; the job by the id that the user knows.
SELECT event.at, event.event, jobs.public_id AS job, event.detail
FROM users JOIN audit_events AS event ON event.subject = users.subject LEFT JOIN jobs ON jobs.id = event.job_id
WHERE users.id = $1
ORDER BY event.id OFFSET $2 LIMIT $3

-- name: jobs
-- A user's jobs after ($2, $3), $4 at most, oldest first; nothing once the user is being erased.
SELECT jobs.id AS job_id, jobs.created_at AS position,
       public_id AS id, operation, parameters, media_type, upload_bytes, profile, pool, state, outcome, code, version,
       attempts, crashes, progress, price, charged, cost_usd, exposure, provider_copies, created_at, queued_at, started_at,
       decided_at, finalized_at, not_before, start_by, finish_by, outputs_until, open_copies, is_sealed
FROM jobs
WHERE user_id = $1 AND ($2::timestamptz IS NULL OR (jobs.created_at, jobs.id) > ($2, $3))
ORDER BY jobs.created_at, jobs.id
LIMIT $4

-- name: uploads
-- What jobs were given.
SELECT job_id, n, what, media_type, size_bytes FROM uploads WHERE job_id = ANY($1) ORDER BY job_id, n

-- name: outputs
-- What jobs made.
SELECT job_id, n, media_type, size_bytes, width, height, is_sealed, thumbnail_bytes, destroy_at, destroyed_at
FROM outputs WHERE job_id = ANY($1) ORDER BY job_id, n

-- name: output_keys
-- What opens sealed outputs, wrapped to each device.
SELECT job_id, n, device_id, wrapped FROM output_keys WHERE job_id = ANY($1) ORDER BY job_id, n, device_id

-- name: notifications
-- Where somebody is told that a job has ended, while that has not been done.
SELECT job_id, id, channel, target, tries, created_at, due_at
FROM notifications WHERE job_id = ANY($1) ORDER BY job_id, channel

-- name: custody
-- Where copies are and were, and how each is known to be gone.
SELECT job_id, domain, holder, what, provider, opened_at, closed_at, evidence, until, swept_at
FROM custody WHERE job_id = ANY($1) ORDER BY job_id, id

-- name: attempts
-- What was tried at providers.
SELECT job_id, id, provider, is_outside, exposure, retention_s, deletes, state, kind, cost_usd, is_estimate, started_at,
       ended_at, purge_at, purge_until
FROM attempts WHERE job_id = ANY($1) ORDER BY job_id, started_at, id

-- name: receipts
-- Every receipt, with the text that was signed.
SELECT job_id, revision, note, created_at FROM receipts WHERE job_id = ANY($1) ORDER BY job_id, revision
