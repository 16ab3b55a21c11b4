-- Counts of queues, for operators. Messages that were pushed with a due time and that nobody
-- claimed yet are put among the delayed ones first, as far as they stand within 1000 places of
-- either end of a list, if there is a worker of ours.
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 separator, 3 steps joined by ",", 4 number of queues, 5... queues
-- Returns: for each queue {waiting, delayed, in flight, dead, paused, the oldest of each list...}
-- include: messages
-- include: due
-- include: leases
-- now
local base, prefix, separator = KEYS[1], ARGV[1], ARGV[2]
-- drains

-- Somebody must be there who puts them back when they are due: without a worker of ours they stay
-- where a Celery worker finds them, and are only counted.
local minded = false
for _, lease in ipairs(redis.call('ZRANGEBYSCORE', base .. 'leases', '(' .. now_text, '+inf')) do
  local known = redis.call('HGET', base .. 'workers', lease)
  if known and unpacked(known)[3] ~= 'operator' then minded = true end
end

local function park(key, step, queue)
  local length = redis.call('LLEN', key)
  local slices = length <= 2000 and {{0, -1}} or {{0, 999}, {-1000, -1}}
  local found = {}
  for _, slice in ipairs(slices) do
    local all = redis.call('LRANGE', key, slice[1], slice[2])
    for i = #all, 1, -1 do
      local notes, rest, ours = notes_of(all[i])
      local due = ours and note(notes, 'due') or nil
      local message = all[i]
      if due then message = with_notes(noted(notes, 'due', ''), rest) end
      if not ours then due = eta_of(all[i]) end
      if due and tonumber(due) > now then found[#found + 1] = {all[i], message, due} end
    end
  end
  if not minded then return #found end
  if #found > 0 then redis.call('SADD', base .. 'queues', queue) end
  for _, one in ipairs(found) do
    if redis.call('LREM', key, -1, one[1]) == 1 then delay(base, step, queue, one[3], one[2]) end
  end
  return 0
end

local in_flight = {}
for _, lease in ipairs(redis.call('ZRANGE', base .. 'leases', 0, -1)) do
  local all = redis.call('HGETALL', base .. 'held:' .. lease)
  for i = 1, #all, 2 do
    local _, queue = place_of(all[i + 1])
    in_flight[queue] = (in_flight[queue] or 0) + 1
  end
end

local answer = {}
for i = 5, 4 + tonumber(ARGV[4]) do
  local queue = ARGV[i]
  local keys, counted = {base .. 'front:' .. queue}, 0
  for step in string.gmatch(ARGV[3], '%d+') do
    keys[#keys + 1] = list_key(prefix, separator, step, queue)
  end
  local waiting, delayed, oldest = 0, 0, {}
  local later = base .. 'delayed:' .. queue
  if redis.call('EXISTS', later, unpack(keys)) > 0 then
    for step in string.gmatch(ARGV[3], '%d+') do
      counted = counted + park(list_key(prefix, separator, step, queue), step, queue)
    end
    promote(base, prefix, separator, queue, now_text)
    for _, key in ipairs(keys) do
      local length = redis.call('LLEN', key)
      waiting = waiting + length
      if length > 0 then oldest[#oldest + 1] = redis.call('LINDEX', key, -1) end
    end
    delayed = redis.call('ZCARD', later)
  end
  local row = {
    waiting - counted,
    delayed + counted,
    in_flight[queue] or 0,
    tonumber(redis.call('HGET', base .. 'dead_counts', queue) or 0),
    redis.call('SISMEMBER', base .. 'paused', queue),
  }
  for _, one in ipairs(oldest) do row[#row + 1] = one end
  answer[#answer + 1] = row
end
return answer
