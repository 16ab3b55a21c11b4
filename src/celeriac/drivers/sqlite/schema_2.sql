-- What version 2 of the tables adds: the periodic tasks.

-- name: schedules
CREATE TABLE schedules (
    name TEXT PRIMARY KEY,
    payload BLOB NOT NULL,
    source TEXT NOT NULL,
    anchor REAL NOT NULL,
    paused INTEGER NOT NULL,
    last_nominal REAL,
    last_run_at REAL,
    count INTEGER NOT NULL,
    state BLOB NOT NULL,
    version INTEGER NOT NULL
) WITHOUT ROWID

-- name: schedules_version
CREATE INDEX schedules_version ON schedules (version)

-- name: schedule_changes
-- One row: version is the last one given, epoch changes when entries are removed.
CREATE TABLE schedule_changes (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL
)

-- name: schedule_changes_row
-- A file that was made anew is not taken for the old one: epochs begin anywhere.
INSERT INTO schedule_changes (id, version, epoch) VALUES (1, 0, abs(random() / 2))
