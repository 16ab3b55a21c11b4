-- The periodic tasks.

-- name: changes
-- out: epoch, the last version
SELECT epoch, version FROM schedule_changes

-- name: since
-- in: a version; out: the entries that were changed after it
SELECT
    name, payload, source, anchor, paused, last_nominal, last_run_at, count, state, version
FROM schedules WHERE version > ? ORDER BY version

-- name: stored
-- in: JSON array of names; out: name, version
SELECT name, version FROM schedules WHERE name IN (SELECT value FROM json_each(?))

-- name: put
-- in: the columns
INSERT OR REPLACE INTO schedules (
    name, payload, source, anchor, paused, last_nominal, last_run_at, count, state, version
) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: set_version
-- in: the last version given
UPDATE schedule_changes SET version = ?

-- name: remove
-- in: JSON array of names
DELETE FROM schedules WHERE name IN (SELECT value FROM json_each(?))

-- name: new_epoch
UPDATE schedule_changes SET epoch = epoch + 1
