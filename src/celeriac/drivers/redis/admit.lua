-- Remember the first publish id seen for a key.
-- KEYS: 1 base
-- ARGV: 1 key, 2 publish id, 3 window
-- Returns: 1 if this is the one
-- now
local keys, ids = KEYS[1] .. 'admitted', KEYS[1] .. 'admitted_ids'
for _, key in ipairs(redis.call('ZRANGEBYSCORE', keys, '-inf', now_text, 'LIMIT', 0, 100)) do
  redis.call('ZREM', keys, key)
  redis.call('HDEL', ids, key)
end
local till = redis.call('ZSCORE', keys, ARGV[1])
if till and tonumber(till) > now then
  return redis.call('HGET', ids, ARGV[1]) == ARGV[2] and 1 or 0
end
redis.call('ZADD', keys, string.format('%.6f', now + tonumber(ARGV[3])), ARGV[1])
redis.call('HSET', ids, ARGV[1], ARGV[2])
return 1
