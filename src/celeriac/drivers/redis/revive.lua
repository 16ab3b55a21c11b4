-- Replace dead letters: take each out and, if bytes are given for it, push those to its list.
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 separator, 3 lease whose loss forbids it or "", 4 count, then for each: the
--       dead letter as it is stored, the bytes that are pushed instead or ""
-- Returns: how many there were; error LEASELOST
-- include: messages
local base, count = KEYS[1], 0
-- drains
if ARGV[3] ~= '' and not redis.call('ZSCORE', base .. 'leases', ARGV[3]) then
  return redis.error_reply('LEASELOST ' .. ARGV[3])
end
for i = 1, tonumber(ARGV[4]) do
  local member, message = ARGV[3 + i * 2], ARGV[4 + i * 2]
  if redis.call('ZREM', base .. 'dead', member) == 1 then
    count = count + 1
    local step, queue = place_of(string.sub(member, 17))
    if redis.call('HINCRBY', base .. 'dead_counts', queue, -1) <= 0 then
      redis.call('HDEL', base .. 'dead_counts', queue)
    end
    if message ~= '' then
      redis.call('LPUSH', list_key(ARGV[1], ARGV[2], step, queue), message)
    end
  end
end
return count
