-- name: output_served
-- An output is about to be sent: number, and what of it. A player asks for a film piece by piece: the pieces of a minute
-- are one event.
INSERT INTO audit_events (event, pseudonym, job_id, detail)
SELECT 'output_served', users.pseudonym, jobs.id, $2
FROM jobs LEFT JOIN users ON users.id = jobs.user_id
WHERE jobs.id = $1
  AND NOT ($2 LIKE '% part' AND EXISTS (
      SELECT FROM (SELECT * FROM audit_events WHERE pseudonym = users.pseudonym ORDER BY id DESC LIMIT 20) AS late
      WHERE late.event = 'output_served' AND late.job_id = jobs.id AND late.detail = $2
        AND late.at > clock_timestamp() - interval '1 minute'))

-- name: of_user
-- What was done to a user's data, newest first, before an event; jobs by the id that the user knows, while there is a record.
SELECT event.id, event.at, event.event, jobs.public_id AS job, event.detail
FROM users JOIN audit_events AS event ON event.pseudonym = users.pseudonym LEFT JOIN jobs ON jobs.id = event.job_id
WHERE users.id = $1 AND ($2::bigint IS NULL OR event.id < $2)
ORDER BY event.id DESC
LIMIT $3

-- name: drawn
-- The highest id that any event has or is about to have.
SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS id FROM audit_events_id_seq

-- name: writing
-- Transactions that may have an event which nobody else sees yet: they hold this lock from before they draw its id.
SELECT DISTINCT virtualtransaction AS transaction FROM pg_locks
WHERE locktype = 'relation' AND relation = 'audit_events'::regclass AND mode = 'RowExclusiveLock'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()

-- name: lock
-- One process seals; another has nothing to do meanwhile.
SELECT pg_try_advisory_xact_lock(x'4175646974'::bigint) AS is_ours

-- name: head
-- The newest batch.
SELECT number, first_id, last_id, keep_until, note, events_deleted_at FROM audit_batches ORDER BY number DESC LIMIT 1

-- name: batches
-- Batches after a number, oldest first.
SELECT number, first_id, last_id, keep_until, note, events_deleted_at FROM audit_batches
WHERE number > $1 ORDER BY number LIMIT $2

-- name: events
-- Events between two ids, in their order.
SELECT id, at, event, pseudonym, job_id, detail FROM audit_events WHERE id BETWEEN $1 AND $2 ORDER BY id LIMIT $3

-- name: add_batch
-- The next batch.
INSERT INTO audit_batches (number, first_id, last_id, keep_until, note) VALUES ($1, $2, $3, $4, $5)

-- name: unsealed
-- How many events are in no batch yet, and how old the oldest of them is.
SELECT count(*) AS events, coalesce(extract(epoch FROM now() - min(at)), 0)::float8 AS oldest_s
FROM audit_events WHERE id > coalesce((SELECT max(last_id) FROM audit_batches), 0)

-- name: delete_old
-- The events of batches past their time go, all of a batch at once; the batches stay, and with them the chain.
WITH due AS (
    SELECT number, first_id, last_id FROM audit_batches
    WHERE events_deleted_at IS NULL AND keep_until < now()
    ORDER BY keep_until
    LIMIT $1
    FOR UPDATE SKIP LOCKED
), marked AS (
    UPDATE audit_batches SET events_deleted_at = now() FROM due WHERE audit_batches.number = due.number
), gone AS (
    DELETE FROM audit_events USING due WHERE audit_events.id BETWEEN due.first_id AND due.last_id
)
SELECT number FROM due
