-- What maintain removes, some rows at a time.

-- name: purge_keys
-- in: now, how many at most
DELETE FROM dedupe_keys
WHERE name IN (SELECT name FROM dedupe_keys WHERE until <= ? ORDER BY until LIMIT ?)

-- name: purge_admitted
-- in: now, how many at most
DELETE FROM admitted
WHERE name IN (SELECT name FROM admitted WHERE until <= ? ORDER BY until LIMIT ?)

-- name: purge_cancelled
-- in: now
DELETE FROM cancelled WHERE until <= ?

-- name: expired_joins
-- in: now, how many at most; out: id
SELECT id FROM joins WHERE expires_at <= ? ORDER BY expires_at LIMIT ?

-- name: drop_arrivals
-- in: JSON array of joins
DELETE FROM arrivals WHERE join_id IN (SELECT value FROM json_each(?))

-- name: drop_plans
-- in: JSON array of joins
DELETE FROM plans WHERE join_id IN (SELECT value FROM json_each(?))

-- name: drop_joins
-- in: JSON array of joins
DELETE FROM joins WHERE id IN (SELECT value FROM json_each(?))

-- name: anything_expired
-- in: now; out: 1 or 0
SELECT EXISTS (SELECT 1 FROM results WHERE expires_at <= ?1)
    OR EXISTS (SELECT 1 FROM dedupe_keys WHERE until <= ?1)
    OR EXISTS (SELECT 1 FROM admitted WHERE until <= ?1)
    OR EXISTS (SELECT 1 FROM cancelled WHERE until <= ?1)
    OR EXISTS (SELECT 1 FROM joins WHERE expires_at <= ?1)

-- name: old_dead
-- in: buried before, how many at most; out: seq
SELECT seq FROM dead WHERE buried_at <= ? ORDER BY number LIMIT ?

-- name: count_dead
-- out: how many
SELECT count(*) FROM dead

-- name: first_dead
-- in: how many; out: seq, the longest buried first
SELECT seq FROM dead ORDER BY number LIMIT ?

-- name: drop_dead
-- in: JSON array of seqs
DELETE FROM dead WHERE seq IN (SELECT value FROM json_each(?))

-- name: due
-- in: now; out: 1 or 0
SELECT EXISTS (SELECT 1 FROM delayed WHERE due_at <= ?)

-- name: anything_due
-- in: now, the time before which dead letters go or NULL, how many stay at most or NULL; out: 1 or 0
SELECT EXISTS (SELECT 1 FROM delayed WHERE due_at <= ?1)
    OR EXISTS (SELECT 1 FROM leases WHERE expires_at <= ?1 OR expires_at > ?1 + ttl)
    OR EXISTS (
        SELECT 1 FROM owners AS o
        WHERE NOT EXISTS (SELECT 1 FROM leases AS l WHERE l.name = o.lease)
    )
    OR EXISTS (SELECT 1 FROM results WHERE expires_at <= ?1)
    OR EXISTS (SELECT 1 FROM dedupe_keys WHERE until <= ?1)
    OR EXISTS (SELECT 1 FROM admitted WHERE until <= ?1)
    OR EXISTS (SELECT 1 FROM cancelled WHERE until <= ?1)
    OR EXISTS (SELECT 1 FROM joins WHERE expires_at <= ?1)
    OR EXISTS (SELECT 1 FROM dead WHERE buried_at <= ?2)
    OR (?3 IS NOT NULL AND (SELECT count(*) FROM dead) > ?3)
