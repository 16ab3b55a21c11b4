-- What version 3 of the tables adds: what is needed to end a join without its parts' messages.

-- name: plans
-- told_at: when somebody was last told that the join is not finished; at first, when it was opened.
CREATE TABLE plans (
    join_id TEXT PRIMARY KEY,
    plan BLOB NOT NULL,
    told_at REAL NOT NULL
) WITHOUT ROWID

-- name: plans_told
CREATE INDEX plans_told ON plans (told_at)
