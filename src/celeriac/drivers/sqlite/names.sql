-- Names as numbers.

-- name: queue_add
-- in: name
INSERT INTO queues (name) VALUES (?) ON CONFLICT (name) DO NOTHING

-- name: queue_id
-- in: name; out: id
SELECT id FROM queues WHERE name = ?

-- name: queue_names
-- out: id, name
SELECT id, name FROM queues

-- name: owner_id
-- in: lease, slot, incarnation; out: id
SELECT id FROM owners WHERE lease = ? AND slot = ? AND incarnation = ?
