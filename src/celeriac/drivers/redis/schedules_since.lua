-- What has changed in the schedule.
-- KEYS: 1 base
-- ARGV: 1 epoch and 2 version up to which all is known; both "" if nothing is
-- Returns: the present "epoch:version" ("" if there is no entry), 1 if all entries follow, and a
-- list of version, value, version, value, ...
local versions = KEYS[1] .. 'schedules_versions'
local at = redis.call('GET', KEYS[1] .. 'schedules_at') or ''
local epoch, last = string.match(at, '^(%d+):(%d+)$')
local whole = ARGV[1] == '' or epoch ~= ARGV[1] or tonumber(ARGV[2]) > tonumber(last)
local found = {}
local changed = redis.call('ZRANGEBYSCORE', versions, whole and '-inf' or ('(' .. ARGV[2]), '+inf')
for i, name in ipairs(changed) do
  found[i * 2 - 1] = string.format('%.0f', tonumber(redis.call('ZSCORE', versions, name)))
  found[i * 2] = redis.call('HGET', KEYS[1] .. 'schedules', name)
end
return {at, whole and 1 or 0, found}
