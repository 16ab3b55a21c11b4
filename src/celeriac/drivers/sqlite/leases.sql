-- Leases, owners, and what is done to those that died.

-- name: register
-- in: name, ttl, now, worker, hostname, pid
-- A lease that lapsed, or whose end no renewal can have set (the clock was put back), begins anew.
INSERT INTO leases (name, ttl, expires_at, since, worker, hostname, pid)
VALUES (?1, ?2, ?3 + ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (name) DO UPDATE SET
    since = CASE
        WHEN leases.expires_at > ?3 AND leases.expires_at <= ?3 + leases.ttl THEN leases.since
        ELSE ?3
    END,
    ttl = excluded.ttl,
    expires_at = excluded.expires_at,
    worker = excluded.worker,
    hostname = excluded.hostname,
    pid = excluded.pid

-- name: renew
-- in: name, now
UPDATE leases SET
    since = CASE WHEN expires_at > ?2 AND expires_at <= ?2 + ttl THEN since ELSE ?2 END,
    expires_at = ?2 + ttl
WHERE name = ?1

-- name: held_and_cancelled
-- in: lease, now; out: id, terminate, signal
SELECT DISTINCT c.id, c.terminate, c.signal
FROM owners AS o
CROSS JOIN inflight AS i ON i.owner = o.id
CROSS JOIN messages AS m ON m.seq = i.seq
CROSS JOIN cancelled AS c ON c.id = m.id
WHERE o.lease = ?1 AND c.until > ?2

-- name: anything_cancelled
-- out: 1 or 0
SELECT EXISTS (SELECT 1 FROM cancelled)

-- name: drop_lease
-- in: name
DELETE FROM leases WHERE name = ?

-- name: lease
-- in: name; out: 1
SELECT 1 FROM leases WHERE name = ?

-- name: give_back
-- in: lease. What its owners hold goes to where it was, and stays marked; it may have been started.
INSERT INTO ready
SELECT i.queue, i.rank, i.pos, i.seq, i.size, i.lost, 1, i.begun, i.note
FROM owners AS o CROSS JOIN inflight AS i ON i.owner = o.id
WHERE o.lease = ?

-- name: let_go
-- in: lease. After give_back.
DELETE FROM inflight WHERE owner IN (SELECT id FROM owners WHERE lease = ?)

-- name: forget_owners
-- in: lease
DELETE FROM owners WHERE lease = ?

-- name: forget_owner
-- in: owner's id
DELETE FROM owners WHERE id = ?

-- name: held_by
-- in: owner's id; out: seq, in the order of the lines
SELECT seq FROM inflight WHERE owner = ? ORDER BY rank, pos

-- name: take_over
-- in: new owner's id, dead owner's id, JSON array of the seqs that were running
UPDATE inflight SET owner = ?1, redelivered = 1,
    lost = lost + (seq IN (SELECT value FROM json_each(?3)))
WHERE owner = ?2

-- name: judge
-- in: lease, now; out: 1 if it may judge others: alive, and renewed without a gap for one lease
SELECT 1 FROM leases
WHERE name = ?1 AND expires_at > ?2 AND expires_at <= ?2 + ttl AND ?2 - since >= ttl

-- name: dead_leases
-- in: now; out: name
-- Beyond its end, or with an end that no renewal can have set: the judge has been there for one
-- whole lease since the clock was put back, and this one was not renewed.
SELECT name FROM leases WHERE expires_at <= ?1 OR expires_at > ?1 + ttl

-- name: orphans
-- in: now; out: lease of owners that hold something and have no lease
SELECT DISTINCT o.lease FROM owners AS o
WHERE NOT EXISTS (SELECT 1 FROM leases AS l WHERE l.name = o.lease)

-- name: count_lost
-- in: lease. What its owners hold was lost once more.
UPDATE inflight SET lost = lost + 1, redelivered = 1
WHERE owner IN (SELECT id FROM owners WHERE lease = ?)

-- name: not_again
-- in: lease, how often at most; out: seq: what is not to run again, oldest first
SELECT i.seq FROM owners AS o CROSS JOIN inflight AS i ON i.owner = o.id
WHERE o.lease = ? AND (i.begun = 1 OR i.lost >= ?)
ORDER BY i.rank, i.pos

-- name: hand_over
-- in: new owner's id, lease, how often at most
UPDATE inflight SET owner = ?1
WHERE owner IN (SELECT id FROM owners WHERE lease = ?2) AND (begun = 1 OR lost >= ?3)

-- name: cancel
-- in: id, until, terminate, signal, now
-- Neither the longer time nor the wish to terminate is forgotten.
INSERT INTO cancelled (id, until, terminate, signal) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (id) DO UPDATE SET
    until = CASE
        WHEN cancelled.until > ?5 THEN max(cancelled.until, excluded.until) ELSE excluded.until
    END,
    signal = CASE
        WHEN cancelled.until > ?5 AND cancelled.terminate > excluded.terminate
        THEN cancelled.signal ELSE excluded.signal
    END,
    terminate = CASE
        WHEN cancelled.until > ?5 THEN max(cancelled.terminate, excluded.terminate)
        ELSE excluded.terminate
    END
