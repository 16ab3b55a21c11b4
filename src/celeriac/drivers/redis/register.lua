-- Take a lease or renew it.
-- KEYS: 1 base
-- ARGV: 1 lease, 2 ttl, 3 name, 4 host, 5 pid
-- Returns: 1
-- now
-- include: leases
-- drains
renew(KEYS[1], ARGV[1], {ARGV[2], '', ARGV[3], ARGV[4], ARGV[5]})
return 1
