-- name: lock
-- Brokers that start at once announce one after the other.
LOCK TABLE notices IN SHARE ROW EXCLUSIVE MODE

-- name: announce
-- A notice with other facts than those in force and those announced last; the first one, and one whose facts are in
-- force already (it only takes back what was announced), takes effect at once. $4 days, $5: though it is in force.
WITH newest AS (SELECT digest FROM notices ORDER BY number DESC LIMIT 1),
     in_force AS (SELECT digest FROM notices WHERE version = notice_in_force()),
     today AS (SELECT to_char(now() AT TIME ZONE 'utc', 'YYYY-MM-DD') || '.' || $1 AS version),
     earlier AS (SELECT count(*) AS n FROM notices, today
                 WHERE notices.version = today.version OR notices.version LIKE today.version || '-%')
INSERT INTO notices (version, digest, facts, announced_at, effective_at)
SELECT today.version || CASE WHEN earlier.n = 0 THEN '' ELSE '-' || earlier.n + 1 END, $2, $3,
       date_trunc('second', now()),
       date_trunc('second', now()) + CASE WHEN NOT EXISTS (SELECT FROM in_force)
                                            OR EXISTS (SELECT FROM in_force WHERE digest = $2)
                                     THEN interval '0' ELSE $4 * interval '1 day' END
FROM today, earlier
WHERE NOT EXISTS (SELECT FROM newest WHERE digest = $2)
  AND ($5 OR NOT EXISTS (SELECT FROM in_force WHERE digest = $2))
RETURNING version, digest, facts, announced_at, effective_at

-- name: shown
-- The notice in force, and after it the one that will be.
SELECT version, digest, facts, announced_at, effective_at
FROM notices
WHERE version = notice_in_force()
   OR (effective_at > now() AND number = (SELECT max(number) FROM notices))
ORDER BY number

-- name: find
-- One version, whether it still holds or not.
SELECT version, digest, facts, announced_at, effective_at FROM notices WHERE version = $1
