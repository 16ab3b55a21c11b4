-- Give a lease back: what its owners hold goes to the front of its lists, with its marks.
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 separator, 3 lease
-- Returns: how many messages went back
-- include: messages
-- include: leases
local base, held = KEYS[1], KEYS[1] .. 'held:' .. ARGV[3]
redis.call('ZREM', base .. 'leases', ARGV[3])
redis.call('HDEL', base .. 'workers', ARGV[3])
local numbers = numbers_of(held)
for i = #numbers, 1, -1 do
  local step, queue, message = place_of(redis.call('HGET', held, numbers[i][2]))
  redis.call('RPUSH', list_key(ARGV[1], ARGV[2], step, queue), redelivered(notes_of(message)))
end
redis.call('DEL', held)
return #numbers
