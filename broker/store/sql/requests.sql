-- name: add
-- A request that was answered as soon as it was asked; no row where too many were asked lately, or the user is no more.
INSERT INTO requests (id, user_id, kind, status, expected_by, answer_by, completed_at)
SELECT $1, users.id, $3, 'completed', now(), now() + $4 * interval '1 day', now()
FROM users
WHERE users.id = $2
  AND (SELECT count(*) FROM requests WHERE user_id = $2 AND received_at > now() - interval '1 day') < $5
RETURNING *

-- name: find
-- One request by its id, whether its user is still there or not.
SELECT * FROM requests WHERE id = $1

-- name: of_user
-- What a user asked for, newest first.
SELECT * FROM requests WHERE user_id = $1 ORDER BY received_at DESC, id LIMIT $2

-- name: copies
-- What became of copies at providers: of jobs that are deleted, and of those that wait for their provider.
SELECT provider, evidence, sum(copies)::int AS copies, max(until) AS until
FROM (SELECT provider, evidence, copies, until FROM request_copies WHERE request_id = $1
      UNION ALL
      SELECT custody.provider, coalesce(custody.evidence, 'unknown'), 1, custody.until
      FROM custody JOIN jobs ON jobs.id = custody.job_id
      WHERE jobs.erased_by = $1 AND custody.domain = 'provider') AS known
GROUP BY provider, evidence
ORDER BY provider, evidence

-- name: counts
-- How many requests are open, and how many of these are past the day by which they had to be answered, but for a hold.
SELECT count(*) AS open, count(*) FILTER (WHERE answer_by < now() AND NOT is_held(user_id)) AS overdue
FROM requests WHERE completed_at IS NULL

-- name: forget
-- Requests whose records have been kept long enough.
DELETE FROM requests WHERE completed_at < now() - $1 * interval '1 second'

-- name: restrict
-- Restrict processing, or lift it; a row where that changes anything.
UPDATE users SET restricted_at = CASE WHEN $2 THEN now() END
WHERE id = $1 AND (restricted_at IS NOT NULL) <> $2
RETURNING id
