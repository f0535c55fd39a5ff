-- name: tables
-- Every table that is not the server's own.
SELECT schemaname AS schema, tablename AS name FROM pg_tables
WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
ORDER BY schemaname, tablename

-- name: past_the_log
-- What a transaction puts into a table of its own making is synced to the table's file, and written to no log.
SET LOCAL wal_skip_threshold = 0

-- name: make_table
-- Where leaks are planted; each time under a name of its own.
CREATE TABLE lethe_planted (leak bytea NOT NULL)

-- name: insert
-- One leak.
INSERT INTO lethe_planted (leak) VALUES ($1)

-- name: drop_table
-- Take them away again.
DROP TABLE lethe_planted

-- name: open_uploads
-- Copies of uploads that are not known to be gone.
SELECT id FROM custody WHERE closed_at IS NULL AND domain = 'ours' AND what <> 'output'
