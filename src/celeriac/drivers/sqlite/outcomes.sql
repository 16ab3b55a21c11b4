-- Records of tasks, joins, admitted keys.

-- name: put
-- in: id, run, state, ready, payload, expires_at, now
-- Promise 9: a SUCCESS stands; a FAILURE or REVOKED gives way to another run only; what is
-- unfinished or expired gives way to anything.
INSERT INTO results (id, run, state, ready, payload, expires_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT (id) DO UPDATE SET
    run = excluded.run,
    state = excluded.state,
    ready = excluded.ready,
    payload = excluded.payload,
    expires_at = excluded.expires_at
WHERE results.ready = 0
    OR (results.state <> 'SUCCESS' AND results.run <> excluded.run)
    OR results.expires_at <= ?7

-- name: get
-- in: JSON array of ids, now; out: id, run, state, ready, payload, expires_at
SELECT r.id, r.run, r.state, r.ready, r.payload, r.expires_at
FROM json_each(?1) AS j CROSS JOIN results AS r ON r.id = j.value
WHERE r.expires_at IS NULL OR r.expires_at > ?2

-- name: get_ready
-- in: JSON array of ids, now; out: as get, finished ones only
SELECT r.id, r.run, r.state, r.ready, r.payload, r.expires_at
FROM json_each(?1) AS j CROSS JOIN results AS r ON r.id = j.value
WHERE r.ready = 1 AND (r.expires_at IS NULL OR r.expires_at > ?2)

-- name: delete
-- in: JSON array of ids, now; deletes those that are there for a reader
DELETE FROM results
WHERE id IN (SELECT value FROM json_each(?1)) AND (expires_at IS NULL OR expires_at > ?2)

-- name: purge
-- in: now, how many at most
DELETE FROM results
WHERE id IN (SELECT id FROM results WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)

-- name: open_join
-- in: id, size, expires_at
INSERT INTO joins (id, size, expires_at) VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING

-- name: keep_plan
-- in: join, plan, now
INSERT INTO plans (join_id, plan, told_at) VALUES (?, ?, ?) ON CONFLICT (join_id) DO NOTHING

-- name: unfinished
-- in: told of before, now, how many at most; out: join, plan, size
SELECT p.join_id, p.plan, j.size FROM plans AS p JOIN joins AS j ON j.id = p.join_id
WHERE p.told_at <= ?1 AND j.complete = 0 AND (j.expires_at IS NULL OR j.expires_at > ?2)
ORDER BY p.told_at LIMIT ?3

-- name: tell_unfinished
-- in: now, join, told of before
UPDATE plans SET told_at = ?1 WHERE join_id = ?2 AND told_at <= ?3

-- name: drop_plan
-- in: join
DELETE FROM plans WHERE join_id = ?

-- name: join
-- in: id, now; out: size, arrived, token: of a join that is still open
SELECT size, arrived, token FROM joins
WHERE id = ? AND complete = 0 AND (expires_at IS NULL OR expires_at > ?)

-- name: complete
-- in: join; out: 1 if all its parts were in
SELECT 1 FROM joins WHERE id = ? AND complete = 1

-- name: arrived
-- in: join, index; out: 1
SELECT 1 FROM arrivals WHERE join_id = ? AND number = ?

-- name: parts
-- in: join; out: index, id, state, value
SELECT number, id, state, value FROM arrivals WHERE join_id = ? ORDER BY number

-- name: set_token
-- in: token, join
UPDATE joins SET token = ? WHERE id = ?

-- name: add_arrival
-- in: join, index, id, state, value
INSERT INTO arrivals VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING

-- name: count_arrival
-- in: join
UPDATE joins SET arrived = arrived + 1 WHERE id = ?

-- name: close_join
-- in: when to forget it, unless it says so itself; join
UPDATE joins SET complete = 1, expires_at = coalesce(expires_at, ?) WHERE id = ?

-- name: drop_parts
-- in: join
DELETE FROM arrivals WHERE join_id = ?

-- name: admit
-- in: key, publish id, until, now
INSERT INTO admitted (name, publish_id, until) VALUES (?1, ?2, ?3)
ON CONFLICT (name) DO UPDATE SET publish_id = excluded.publish_id, until = excluded.until
WHERE admitted.until <= ?4

-- name: admitted
-- in: key; out: publish id
SELECT publish_id FROM admitted WHERE name = ?
