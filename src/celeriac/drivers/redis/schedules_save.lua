-- Store entries of the schedule, each if its stored version is still the one it carries.
-- KEYS: 1 base
-- ARGV: 1 count, then for each: name, version (0: there must be none), value
-- Returns: for each the new version, or 0: nothing was stored
--
-- base..schedules: name to value. base..schedules_versions: names by version. base..schedules_at:
-- "epoch:version", the last version and that of the last removal. Versions are the server's time in
-- microseconds, made to grow, so that none is used again, not even after the server was emptied or
-- came back without its last writes.
local values, versions, at = KEYS[1] .. 'schedules', KEYS[1] .. 'schedules_versions', KEYS[1] .. 'schedules_at'
local time = redis.call('TIME')
local last = time[1] * 1000000 + time[2]
local epoch, before = string.match(redis.call('GET', at) or '', '^(%d+):(%d+)$')
epoch = epoch or string.format('%.0f', last)
last = math.max(last, tonumber(before or 0))
local answers, stored = {}, false
for i = 1, tonumber(ARGV[1]) do
  local name, version = ARGV[i * 3 - 1], ARGV[i * 3]
  if tonumber(redis.call('ZSCORE', versions, name) or 0) == tonumber(version) then
    last = last + 1
    redis.call('HSET', values, name, ARGV[i * 3 + 1])
    redis.call('ZADD', versions, string.format('%.0f', last), name)
    answers[i], stored = last, true
  else
    answers[i] = 0
  end
end
if stored then redis.call('SET', at, epoch .. ':' .. string.format('%.0f', last)) end
return answers
