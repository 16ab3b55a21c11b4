-- Ending deliveries.

-- name: finish_range
-- in: owner, first seq, last seq: all between them are in the batch
DELETE FROM inflight WHERE owner = ? AND seq BETWEEN ? AND ?

-- name: remove_range
-- in: first seq, last seq
DELETE FROM messages WHERE seq BETWEEN ? AND ?

-- name: finish_these
-- in: owner, JSON array of seqs
DELETE FROM inflight WHERE owner = ? AND seq IN (SELECT value FROM json_each(?))

-- name: remove_these
-- in: JSON array of seqs
DELETE FROM messages WHERE seq IN (SELECT value FROM json_each(?))

-- name: holding
-- in: owner, seq; out: 1 if it is held
SELECT 1 FROM inflight WHERE owner = ? AND seq = ?

-- name: finish
-- in: owner, seq
DELETE FROM inflight WHERE owner = ? AND seq = ?

-- name: remove
-- in: seq
DELETE FROM messages WHERE seq = ?

-- name: release
-- in: owner, seq. To where it was.
INSERT INTO ready
SELECT queue, rank, pos, seq, size, lost, redelivered, 0, note
FROM inflight WHERE owner = ? AND seq = ?

-- name: defer_ready
-- in: owner, seq, its new place, note. To the end of its line.
INSERT INTO ready
SELECT queue, rank, ?3, seq, size, lost, redelivered, 0, ?4
FROM inflight WHERE owner = ?1 AND seq = ?2

-- name: defer_delayed
-- in: owner, seq, due_at, note
INSERT INTO delayed
SELECT seq, ?3, queue, rank, size, lost, redelivered, ?4
FROM inflight WHERE owner = ?1 AND seq = ?2

-- name: bury
-- in: owner, seq, reason, now
INSERT INTO dead (seq, queue, lost, reason, buried_at)
SELECT seq, queue, lost, ?3, ?4 FROM inflight WHERE owner = ?1 AND seq = ?2

-- name: begin
-- in: owner, JSON array of seqs; out: those that are held
UPDATE inflight SET begun = 1
WHERE owner = ? AND seq IN (SELECT value FROM json_each(?))
RETURNING seq
