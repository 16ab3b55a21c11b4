-- Renew a lease, if it is there, and tell which of the ids in flight were cancelled.
-- KEYS: 1 base
-- ARGV: 1 lease
-- Returns: {0}, or {1, id, signal or "", id, signal, ...} (a signal: terminate it)
-- include: messages
-- now
-- include: leases
local base, held = KEYS[1], KEYS[1] .. 'held:' .. ARGV[1]
-- drains
if not renew(base, ARGV[1]) then return {0} end
local answer = {1}
if redis.call('EXISTS', base .. 'cancelled') == 1 then
  local told = {}
  for _, one in ipairs(numbers_of(held)) do
    local _, _, message = place_of(redis.call('HGET', held, one[2]))
    local id = id_of(message)
    local till = redis.call('ZSCORE', base .. 'cancelled', id)
    if till and tonumber(till) > now and not told[id] then
      told[id] = true
      answer[#answer + 1] = id
      answer[#answer + 1] = redis.call('HGET', base .. 'terminated', id) or ''
    end
  end
end
return answer
