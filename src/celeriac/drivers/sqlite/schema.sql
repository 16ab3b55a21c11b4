-- The tables, version 1. A message's bytes never move: where it is, is a small row in one of the
-- dense tables ready, delayed, inflight, dead, so that claiming and settling touch few pages.

-- name: queues
-- Queue names as small numbers. Rows stay.
CREATE TABLE queues (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    paused INTEGER NOT NULL DEFAULT 0
)

-- name: messages
-- One row from publish until it is settled. seq is the tag.
CREATE TABLE messages (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    run TEXT NOT NULL,
    queue INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    headers BLOB NOT NULL,
    body BLOB NOT NULL,
    content_type TEXT NOT NULL,
    content_encoding TEXT NOT NULL,
    exchange TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    reply_to TEXT NOT NULL,
    delivery_mode INTEGER NOT NULL,
    due_at REAL,
    expires_at REAL,
    join_id TEXT,
    dedupe_key TEXT,
    published_at REAL NOT NULL
)

-- name: messages_id
-- For cancel, find and delete. Ids are made in order, so this grows at its end.
CREATE INDEX messages_id ON messages (id)

-- name: sequence
-- One row: the highest number that was given out and is not the highest seq. The next number is
-- above both, so none is used again. (AUTOINCREMENT would write a page more for every publish.)
CREATE TABLE sequence (last INTEGER NOT NULL)

-- name: sequence_start
INSERT INTO sequence VALUES (0)

-- name: ready
-- Waiting: rank 0 first (priority 9), then pos. pos is seq, or a later number of the same sequence
-- for a message that came back to the end of its line.
CREATE TABLE ready (
    queue INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    size INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    redelivered INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    note TEXT,
    PRIMARY KEY (queue, rank, pos)
) WITHOUT ROWID

-- name: ready_moved
-- A message whose pos is not its seq is found by this; for the others it costs nothing.
CREATE INDEX ready_moved ON ready (seq) WHERE pos <> seq

-- name: delayed
CREATE TABLE delayed (
    seq INTEGER PRIMARY KEY,
    due_at REAL NOT NULL,
    queue INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    size INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    redelivered INTEGER NOT NULL,
    note TEXT
)

-- name: delayed_due
CREATE INDEX delayed_due ON delayed (due_at)

-- name: inflight
CREATE TABLE inflight (
    owner INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    queue INTEGER NOT NULL,
    rank INTEGER NOT NULL,
    pos INTEGER NOT NULL,
    size INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    redelivered INTEGER NOT NULL,
    begun INTEGER NOT NULL,
    note TEXT,
    PRIMARY KEY (owner, seq)
) WITHOUT ROWID

-- name: dead
-- number is the order of burial.
CREATE TABLE dead (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    seq INTEGER NOT NULL UNIQUE,
    queue INTEGER NOT NULL,
    lost INTEGER NOT NULL,
    reason TEXT NOT NULL,
    buried_at REAL NOT NULL
)

-- name: leases
-- since: from when on it was renewed without a gap.
CREATE TABLE leases (
    name TEXT PRIMARY KEY,
    ttl REAL NOT NULL,
    expires_at REAL NOT NULL,
    since REAL NOT NULL,
    worker TEXT NOT NULL,
    hostname TEXT NOT NULL,
    pid INTEGER NOT NULL
) WITHOUT ROWID

-- name: owners
-- Ids are never used again: who remembers an old one finds nothing, never somebody else's.
CREATE TABLE owners (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    lease TEXT NOT NULL,
    slot INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,
    UNIQUE (lease, slot, incarnation)
)

-- name: results
CREATE TABLE results (
    id TEXT PRIMARY KEY,
    run TEXT NOT NULL,
    state TEXT NOT NULL,
    ready INTEGER NOT NULL,
    payload BLOB NOT NULL,
    expires_at REAL
) WITHOUT ROWID

-- name: results_expires
CREATE INDEX results_expires ON results (expires_at)

-- name: joins
CREATE TABLE joins (
    id TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    arrived INTEGER NOT NULL DEFAULT 0,
    complete INTEGER NOT NULL DEFAULT 0,
    token TEXT,
    expires_at REAL
) WITHOUT ROWID

-- name: joins_expires
CREATE INDEX joins_expires ON joins (expires_at)

-- name: arrivals
CREATE TABLE arrivals (
    join_id TEXT NOT NULL,
    number INTEGER NOT NULL,
    id TEXT NOT NULL,
    state TEXT NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (join_id, number)
) WITHOUT ROWID

-- name: dedupe_keys
CREATE TABLE dedupe_keys (
    name TEXT PRIMARY KEY,
    until REAL NOT NULL
) WITHOUT ROWID

-- name: dedupe_keys_until
CREATE INDEX dedupe_keys_until ON dedupe_keys (until)

-- name: admitted
CREATE TABLE admitted (
    name TEXT PRIMARY KEY,
    publish_id TEXT NOT NULL,
    until REAL NOT NULL
) WITHOUT ROWID

-- name: admitted_until
CREATE INDEX admitted_until ON admitted (until)

-- name: cancelled
CREATE TABLE cancelled (
    id TEXT PRIMARY KEY,
    until REAL NOT NULL,
    terminate INTEGER NOT NULL,
    signal TEXT NOT NULL
) WITHOUT ROWID

-- name: events
CREATE TABLE events (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL
)
