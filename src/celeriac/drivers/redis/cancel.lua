-- Remember ids as cancelled; neither the longer time nor the wish to terminate is forgotten.
-- KEYS: 1 base
-- ARGV: 1 lease of the caller, 2 until, 3 signal or "", 4 count, 5... ids
-- Returns: 1; error LEASELOST
-- now
local base, ids, till, signal = KEYS[1], KEYS[1] .. 'cancelled', ARGV[2], ARGV[3]
redis.call('ZREMRANGEBYSCORE', ids, '-inf', '(0')
if not redis.call('ZSCORE', base .. 'leases', ARGV[1]) then
  return redis.error_reply('LEASELOST ' .. ARGV[1])
end
for i = 5, 4 + tonumber(ARGV[4]) do
  local id = ARGV[i]
  local old = redis.call('ZSCORE', ids, id)
  if old and tonumber(old) <= now then
    redis.call('ZREM', ids, id)
    redis.call('HDEL', base .. 'terminated', id)
  end
  if tonumber(till) > now then
    redis.call('ZADD', ids, 'GT', till, id)
    if signal ~= '' then redis.call('HSET', base .. 'terminated', id, signal) end
  end
end
return 1
