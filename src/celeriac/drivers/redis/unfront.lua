-- A waiter that goes leaves behind what it was woken for.
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 queue
-- Returns: how many messages went back
-- include: fronts
return unfront(KEYS[1], ARGV[1], ARGV[2])
