-- The event bus: a bounded list that everybody reads from where they are.

-- name: emit
-- in: topic, payload
INSERT INTO events (topic, payload) VALUES (?, ?)

-- name: trim
-- in: the last number that goes
DELETE FROM events WHERE number <= ?

-- name: last
-- out: the last number given out (no row: none yet)
SELECT seq FROM sqlite_sequence WHERE name = 'events'

-- name: since
-- in: number, JSON array of topics, how many at most; out: number, topic, payload
SELECT number, topic, payload FROM events
WHERE number > ?1 AND topic IN (SELECT value FROM json_each(?2))
ORDER BY number LIMIT ?3
