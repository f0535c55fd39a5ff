-- name: register
-- A process says that it is alive, and what it can do.
INSERT INTO processes (id, role, lease_until, facts) VALUES ($1, $2, now() + $3 * interval '1 second', $4)

-- name: renew
-- Lengthen a lease that has not ended; no row means that it has, and that nothing may be held any more.
UPDATE processes SET lease_until = now() + $2 * interval '1 second', facts = $3
WHERE id = $1 AND lease_until > now()
RETURNING id

-- name: leave
-- The process is going; it holds nothing any more.
DELETE FROM processes WHERE id = $1

-- name: alive
-- Every process with a live lease.
SELECT id, role, facts FROM processes WHERE lease_until > now()

-- name: forget_dead
-- Rows of processes that died long ago and that no job or copy names.
DELETE FROM processes
WHERE lease_until < now() - interval '10 minutes'
  AND NOT EXISTS (SELECT FROM custody WHERE holder = 'process' AND closed_at IS NULL AND ref = processes.id::text)
