-- Due messages up, messages of dead leases back to the front or into the judge's hands, and what
-- is kept no longer gone.
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 separator, 3 lease of the judge, 4 the judge within it, 5 most deliveries,
--       6 seconds that dead letters are kept or "", 7 how many of them or ""
-- Returns: what was handed: see hand
-- include: messages
-- include: due
-- include: fronts
-- now
-- include: leases
-- include: handing
local base, prefix, separator, judge = KEYS[1], ARGV[1], ARGV[2], ARGV[3]
-- drains

-- An idle server is asked for little: nearly always nothing of this is there.
local queues = redis.call('SMEMBERS', base .. 'queues')
local kept = {base .. 'dead', base .. 'cancelled', base .. 'keys'}
for _, queue in ipairs(queues) do
  kept[#kept + 1] = base .. 'delayed:' .. queue
  kept[#kept + 1] = base .. 'front:' .. queue
end
local anything = #kept < 5000 and redis.call('EXISTS', unpack(kept)) or 1
if anything > 0 then
  for _, queue in ipairs(queues) do
    promote(base, prefix, separator, queue, now_text)
    -- Whoever was woken for these may be dead: they wake somebody else.
    unfront(base, prefix, queue)
  end
end

local answer = {}
local function collect(lease)
  redis.call('ZREM', base .. 'leases', lease)
  redis.call('HDEL', base .. 'workers', lease)
  local held, back = base .. 'held:' .. lease, {}
  for _, one in ipairs(numbers_of(held)) do
    local step, queue, message = place_of(redis.call('HGET', held, one[2]))
    local losses, begun
    message, losses, begun = lost_once_more(message)
    if begun or losses >= tonumber(ARGV[5]) then
      hand(base, judge, ARGV[4], step, queue, message, answer)
    else
      back[#back + 1] = {list_key(prefix, separator, step, queue), message}
    end
  end
  for i = #back, 1, -1 do redis.call('RPUSH', back[i][1], back[i][2]) end
  redis.call('DEL', held)
end

local dead = redis.call('ZRANGEBYSCORE', base .. 'leases', '-inf', now_text)
if #dead > 0 then
  local ends = redis.call('ZSCORE', base .. 'leases', judge)
  local known = redis.call('HGET', base .. 'workers', judge)
  if ends and known and tonumber(ends) > now then
    local own = unpacked(known)
    if now - tonumber(own[2]) >= tonumber(own[1]) then
      for _, lease in ipairs(dead) do collect(lease) end
    end
  end
end

local function drop(members)
  for _, member in ipairs(members) do
    local _, queue = place_of(string.sub(member, 17))
    redis.call('ZREM', base .. 'dead', member)
    if redis.call('HINCRBY', base .. 'dead_counts', queue, -1) <= 0 then
      redis.call('HDEL', base .. 'dead_counts', queue)
    end
  end
end
if anything > 0 then
  if ARGV[6] ~= '' then
    local before = string.format('%.6f', now - tonumber(ARGV[6]))
    drop(redis.call('ZRANGEBYSCORE', base .. 'dead', '-inf', before, 'LIMIT', 0, 1000))
  end
  if ARGV[7] ~= '' then
    local surplus = redis.call('ZCARD', base .. 'dead') - tonumber(ARGV[7])
    if surplus > 0 then drop(redis.call('ZRANGE', base .. 'dead', 0, math.min(surplus, 1000) - 1)) end
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', base .. 'cancelled', '-inf', now_text, 'LIMIT', 0,
    1000)) do
    redis.call('ZREM', base .. 'cancelled', id)
    redis.call('HDEL', base .. 'terminated', id)
  end
  redis.call('ZREMRANGEBYSCORE', base .. 'keys', '-inf', now_text)
end
return answer
