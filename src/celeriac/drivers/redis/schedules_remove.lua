-- Forget entries of the schedule. With the last of them nothing is left.
-- KEYS: 1 base
-- ARGV: 1 count, then names
-- Returns: how many there were
local values, versions, at = KEYS[1] .. 'schedules', KEYS[1] .. 'schedules_versions', KEYS[1] .. 'schedules_at'
local gone = 0
for i = 2, tonumber(ARGV[1]) + 1 do
  redis.call('ZREM', versions, ARGV[i])
  gone = gone + redis.call('HDEL', values, ARGV[i])
end
if gone == 0 then return 0 end
if redis.call('EXISTS', values) == 0 then
  redis.call('DEL', at)
else
  local last = tonumber(string.match(redis.call('GET', at), ':(%d+)$'))
  local changed = string.format('%.0f', last + 1)
  redis.call('SET', at, changed .. ':' .. changed)
end
return gone
