-- Publishing, claiming, and the rows that say where a message is.

-- name: next_seq
-- out: the next number
SELECT 1 + max((SELECT last FROM sequence), coalesce((SELECT max(seq) FROM messages), 0))

-- name: use_up
-- in: the last number that is used
UPDATE sequence SET last = ?

-- name: removing
-- in: the highest seq of messages that are going to be removed
UPDATE sequence SET last = ?1 WHERE last < ?1 AND ?1 >= (SELECT max(seq) FROM messages)

-- name: insert_next
-- in: all columns but seq
INSERT INTO messages VALUES (
    1 + max((SELECT last FROM sequence), coalesce((SELECT max(seq) FROM messages), 0)),
    ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
)

-- name: insert
-- in: all columns
INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)

-- name: insert_ready
-- in: queue, rank, pos, seq, size. A new message.
INSERT INTO ready VALUES (?, ?, ?, ?, ?, 0, 0, 0, NULL)

-- name: insert_delayed
-- in: seq, due_at, queue, rank, size. A new message.
INSERT INTO delayed VALUES (?, ?, ?, ?, ?, 0, 0, NULL)

-- name: take_keys
-- in: until, JSON array of keys, now; out: the keys that were not held
INSERT INTO dedupe_keys (name, until)
SELECT value, ?1 FROM json_each(?2) WHERE true
ON CONFLICT (name) DO UPDATE SET until = excluded.until WHERE dedupe_keys.until <= ?3
RETURNING name

-- name: look
-- in: lease, owner's slot, incarnation
-- out: 1 if the lease is there, the owner's id, the next due time, 1 if anything is cancelled
SELECT
    (SELECT 1 FROM leases WHERE name = ?1),
    (SELECT id FROM owners WHERE lease = ?1 AND slot = ?2 AND incarnation = ?3),
    (SELECT due_at FROM delayed ORDER BY due_at LIMIT 1),
    EXISTS (SELECT 1 FROM cancelled)

-- name: open_queues
-- in: JSON array of names; out: place in the array, id: those that hold something for a claimer
SELECT j.key, q.id
FROM json_each(?) AS j CROSS JOIN queues AS q ON q.name = j.value
WHERE q.paused = 0 AND EXISTS (SELECT 1 FROM ready AS r WHERE r.queue = q.id)

-- name: first_ready
-- in: queue, limit; out: rank, pos, seq, size, lost
SELECT rank, pos, seq, size, lost FROM ready WHERE queue = ? ORDER BY rank, pos LIMIT ?

-- name: hold_ready
-- in: owner, queue, rank, pos of the last one taken
INSERT INTO inflight
SELECT ?1, seq, queue, rank, pos, size, lost, redelivered, begun, note
FROM ready WHERE queue = ?2 AND (rank, pos) <= (?3, ?4)

-- name: delete_ready
-- in: queue, rank, pos of the last one taken
DELETE FROM ready WHERE queue = ? AND (rank, pos) <= (?, ?)

-- name: add_owner
-- in: lease, slot, incarnation
INSERT INTO owners (lease, slot, incarnation) VALUES (?, ?, ?)
ON CONFLICT (lease, slot, incarnation) DO NOTHING

-- name: held
-- in: JSON array of seqs, owner; out: the message's columns, then lost, redelivered, begun, note
SELECT m.*, i.lost, i.redelivered, i.begun, i.note
FROM json_each(?1) AS j
CROSS JOIN inflight AS i ON i.owner = ?2 AND i.seq = j.value
CROSS JOIN messages AS m ON m.seq = i.seq

-- name: cancelled_among
-- in: JSON array of ids, now; out: those that are cancelled
SELECT id FROM cancelled WHERE until > ?2 AND id IN (SELECT value FROM json_each(?1))

-- name: promote
-- in: now, the next number, how many at most
-- What is due takes its place at the end of its line, the longest due first.
INSERT INTO ready
SELECT
    queue, rank, ?2 - 1 + row_number() OVER (ORDER BY due_at, seq), seq, size, lost, redelivered, 0, note
FROM (SELECT * FROM delayed WHERE due_at <= ?1 ORDER BY due_at, seq LIMIT ?3)

-- name: promoted
-- in: now, how many at most. After promote.
DELETE FROM delayed
WHERE seq IN (SELECT seq FROM delayed WHERE due_at <= ?1 ORDER BY due_at, seq LIMIT ?2)

-- name: unstarted
-- in: JSON array of ids; out: seq: the waiting and delayed messages of these ids, oldest first
SELECT m.seq FROM messages AS m
WHERE m.id IN (SELECT value FROM json_each(?1))
    AND (
        EXISTS (SELECT 1 FROM delayed AS d WHERE d.seq = m.seq)
        OR EXISTS (
            SELECT 1 FROM ready AS r
            WHERE r.queue = m.queue AND r.rank = 9 - max(0, min(9, m.priority))
                AND r.pos = m.seq AND r.seq = m.seq
        )
        OR EXISTS (SELECT 1 FROM ready AS r WHERE r.seq = m.seq AND r.pos <> r.seq)
    )
ORDER BY m.seq

-- name: hold_waiting
-- in: owner, JSON array of seqs
INSERT INTO inflight
SELECT ?1, r.seq, r.queue, r.rank, r.pos, r.size, r.lost, r.redelivered, r.begun, r.note
FROM json_each(?2) AS j
CROSS JOIN messages AS m ON m.seq = j.value
CROSS JOIN ready AS r ON r.queue = m.queue AND r.rank = 9 - max(0, min(9, m.priority))
    AND r.pos = m.seq AND r.seq = m.seq

-- name: hold_moved
-- in: owner, JSON array of seqs
INSERT INTO inflight
SELECT ?1, r.seq, r.queue, r.rank, r.pos, r.size, r.lost, r.redelivered, r.begun, r.note
FROM json_each(?2) AS j CROSS JOIN ready AS r ON r.seq = j.value AND r.pos <> r.seq

-- name: hold_delayed
-- in: owner, JSON array of seqs. Its place in line, if it ever gets one, is its seq.
INSERT INTO inflight
SELECT ?1, d.seq, d.queue, d.rank, d.seq, d.size, d.lost, d.redelivered, 0, d.note
FROM json_each(?2) AS j CROSS JOIN delayed AS d ON d.seq = j.value

-- name: drop_waiting
-- in: JSON array of seqs
DELETE FROM ready WHERE (queue, rank, pos) IN (
    SELECT m.queue, 9 - max(0, min(9, m.priority)), m.seq
    FROM json_each(?1) AS j CROSS JOIN messages AS m ON m.seq = j.value
) AND pos = seq

-- name: drop_moved
-- in: JSON array of seqs
DELETE FROM ready WHERE seq IN (SELECT value FROM json_each(?1)) AND pos <> seq

-- name: drop_delayed
-- in: JSON array of seqs
DELETE FROM delayed WHERE seq IN (SELECT value FROM json_each(?1))
