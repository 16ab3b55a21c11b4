-- For operators and the dashboard.

-- name: ready_counts
-- out: queue, how many wait, the longest published of them
SELECT queue, count(*), min(seq) FROM ready GROUP BY queue

-- name: published_at
-- in: seq
SELECT published_at FROM messages WHERE seq = ?

-- name: delayed_counts
SELECT queue, count(*) FROM delayed GROUP BY queue

-- name: inflight_counts
SELECT queue, count(*) FROM inflight GROUP BY queue

-- name: dead_counts
SELECT queue, count(*) FROM dead GROUP BY queue

-- name: queues
-- out: id, name, paused
SELECT id, name, paused FROM queues ORDER BY name

-- name: workers
-- out: a lease, and how many messages its owners hold
SELECT l.name, l.worker, l.hostname, l.pid, l.since, l.expires_at, (
    SELECT count(*)
    FROM owners AS o CROSS JOIN inflight AS i ON i.owner = o.id
    WHERE o.lease = l.name
)
FROM leases AS l ORDER BY l.worker, l.name

-- name: pause
-- in: name, 1 or 0
INSERT INTO queues (name, paused) VALUES (?1, ?2)
ON CONFLICT (name) DO UPDATE SET paused = excluded.paused

-- name: peek_waiting
-- in: queue's id, after rank, after pos, limit
-- out: the message's columns, cursor, lost
SELECT m.*, r.rank || '/' || r.pos, r.lost
FROM ready AS r CROSS JOIN messages AS m ON m.seq = r.seq
WHERE r.queue = ?1 AND (r.rank, r.pos) > (?2, ?3)
ORDER BY r.rank, r.pos LIMIT ?4

-- name: peek_delayed
-- in: queue's id or NULL, after due_at, after seq, limit
-- out: the message's columns, cursor, lost, due_at
SELECT m.*, printf('%!.17g/%d', d.due_at, d.seq), d.lost, d.due_at
FROM delayed AS d CROSS JOIN messages AS m ON m.seq = d.seq
WHERE (?1 IS NULL OR d.queue = ?1) AND (d.due_at, d.seq) > (?2, ?3)
ORDER BY d.due_at, d.seq LIMIT ?4

-- name: peek_inflight
-- in: queue's id or NULL, after owner, after seq, limit
-- out: the message's columns, cursor, lost
SELECT m.*, i.owner || '/' || i.seq, i.lost
FROM inflight AS i CROSS JOIN messages AS m ON m.seq = i.seq
WHERE (?1 IS NULL OR i.queue = ?1) AND (i.owner, i.seq) > (?2, ?3)
ORDER BY i.owner, i.seq LIMIT ?4

-- name: peek_dead
-- in: queue's id or NULL, before number, (unused), limit
-- out: the message's columns, cursor, lost, reason, buried_at
SELECT m.*, d.number || '/0', d.lost, d.reason, d.buried_at
FROM dead AS d CROSS JOIN messages AS m ON m.seq = d.seq
WHERE (?1 IS NULL OR d.queue = ?1) AND d.number < ?2 AND ?3 IS NOT NULL
ORDER BY d.number DESC LIMIT ?4

-- name: find_dead
-- in: JSON array of ids
SELECT m.*, d.number || '/0', d.lost, d.reason, d.buried_at
FROM messages AS m CROSS JOIN dead AS d ON d.seq = m.seq
WHERE m.id IN (SELECT value FROM json_each(?))

-- name: find_delayed
-- in: JSON array of ids
SELECT m.*, printf('%!.17g/%d', d.due_at, d.seq), d.lost, d.due_at
FROM messages AS m CROSS JOIN delayed AS d ON d.seq = m.seq
WHERE m.id IN (SELECT value FROM json_each(?))

-- name: find_inflight
-- in: JSON array of ids
SELECT m.*, i.owner || '/' || i.seq, i.lost
FROM messages AS m CROSS JOIN owners AS o CROSS JOIN inflight AS i
    ON i.owner = o.id AND i.seq = m.seq
WHERE m.id IN (SELECT value FROM json_each(?))

-- name: find_waiting
-- in: JSON array of ids
SELECT m.*, r.rank || '/' || r.pos, r.lost
FROM messages AS m CROSS JOIN ready AS r ON r.queue = m.queue
    AND r.rank = 9 - max(0, min(9, m.priority)) AND r.pos = m.seq AND r.seq = m.seq
WHERE m.id IN (SELECT value FROM json_each(?1))
UNION ALL
SELECT m.*, r.rank || '/' || r.pos, r.lost
FROM messages AS m CROSS JOIN ready AS r ON r.seq = m.seq AND r.pos <> r.seq
WHERE m.id IN (SELECT value FROM json_each(?1))

-- name: dead_of
-- in: JSON array of ids; out: seq, longest buried first
SELECT d.seq FROM messages AS m CROSS JOIN dead AS d ON d.seq = m.seq
WHERE m.id IN (SELECT value FROM json_each(?)) ORDER BY d.number

-- name: whole
-- in: JSON array of seqs; out: the messages' columns
SELECT m.* FROM json_each(?) AS j CROSS JOIN messages AS m ON m.seq = j.value

-- name: some_of_queue
-- in: queue's id, how many at most; out: seq, 1 if it belongs to a join
SELECT m.seq, m.join_id IS NOT NULL FROM messages AS m
WHERE m.seq IN (
    SELECT seq FROM (SELECT seq FROM ready WHERE queue = ?1 LIMIT ?2)
    UNION ALL
    SELECT seq FROM (SELECT seq FROM delayed WHERE queue = ?1 LIMIT ?2)
)

-- name: joined
-- in: JSON array of seqs; out: those that belong to a join
SELECT seq FROM messages
WHERE seq IN (SELECT value FROM json_each(?)) AND join_id IS NOT NULL ORDER BY seq
