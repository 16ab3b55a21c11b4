-- Take up to ``limit`` due messages for an owner: from each queue in the order given what somebody
-- was woken for (``front``), then its lists by priority, the oldest first.
-- KEYS: 1 base (prefix .. "celeriac:")
-- ARGV: 1 prefix, 2 separator, 3 lease, 4 owner within it (slot/incarnation), 5 limit, 6 bytes,
--       7 steps joined by ",", 8 number of queues, 9... queues
-- Returns: {number of the first, indexes of cancelled ones, when the next is due or "",
--           paused queues, queue, {messages}, queue, {messages}, ...}; error LEASELOST
-- A message whose time has not come is put among the delayed ones by whoever claims it; one that
-- was lost before is handed out alone. A full server permits it.
-- include: messages
-- include: due
-- drains
local base, prefix, separator = KEYS[1], ARGV[1], ARGV[2]
local lease, owner = ARGV[3], ARGV[4]
local limit, room = tonumber(ARGV[5]), tonumber(ARGV[6])
local held = base .. 'held:' .. lease
if not redis.call('ZSCORE', base .. 'leases', lease) then
  return redis.error_reply('LEASELOST ' .. lease)
end

local paused = {}
for _, queue in ipairs(redis.call('SMEMBERS', base .. 'paused')) do paused[queue] = true end
local asked, stopped, kept = {}, {}, {}
for i = 9, 8 + tonumber(ARGV[8]) do
  local queue = ARGV[i]
  asked[#asked + 1] = queue
  if paused[queue] then
    stopped[#stopped + 1] = queue
  else
    add_places(kept, base, prefix, separator, ARGV[7], queue)
  end
end
-- An idle worker asks for little.
if #kept < 5000 and (#kept == 0 or redis.call('EXISTS', unpack(kept)) == 0) then
  return {0, {}, '', stopped}
end
-- now

local PLAIN = '{"celeriac":"",'
local MOST_PARKED = 1000
-- What is taken, and from which place on it came from which list: {first, step, queue}.
local taken, places = {}, {}
local count, used, parked, exact, full = 0, 0, 0, false, limit <= 0
local sub = string.sub

-- Bytes of headers and body, as near as can be told without reading the message.
local function size_of(message)
  local _, first = string.find(message, '"body": ?"')
  local stop = first and string.find(message, '"', first + 1, true)
  local _, head = string.find(message, '"headers": ?')
  local tail, from = nil, 1
  while true do
    local at = string.find(message, '"properties":', from, true)
    if not at then break end
    tail, from = at, at + 1
  end
  if not stop or not head or not tail then return #message end
  local body = math.floor((stop - first - 1) * 3 / 4)
  if sub(message, stop - 2, stop - 1) == '==' then body = body - 2
  elseif sub(message, stop - 1, stop - 1) == '=' then body = body - 1 end
  return body + #string.match(sub(message, head + 1, tail - 1), '^(.-), ?$')
end

-- The whole message is an upper bound, which is nearly always enough.
local function fits(message)
  if not exact then
    exact, used = true, 0
    for _, one in ipairs(taken) do used = used + size_of(one) end
  end
  local size = size_of(message)
  if count > 0 and used + size > room then return false end
  used = used + size
  return true
end

-- Messages in the last list may be left to workers of others for a while: these are passed over.
local last_step = string.match(ARGV[7], '(%d+)$')
local next_offered = nil

local function left_to_others(message)
  if sub(message, 1, 15) == PLAIN then return nil end
  local till = tonumber(note(notes_of(message), 'u') or 0)
  return till > now and till or nil
end

local function nothing_else(key)
  for _, first in ipairs({-1, -1000}) do -- one tells nearly always
    local all = redis.call('LRANGE', key, first, -1)
    for i = #all, 1, -1 do
      local till = left_to_others(all[i])
      if not till then return false end
      if not next_offered or till < next_offered then next_offered = till end
    end
  end
  return true
end

-- What is special about a message: when it is due, as text, whether it was lost, its new bytes.
local function look(message)
  local notes, rest, ours = notes_of(message)
  if ours then
    local due = note(notes, 'due')
    if due then message = with_notes(noted(notes, 'due', ''), rest) end
    if note(notes, 'u') then message = with_notes(noted(notes, 'u', ''), rest) end
    return due, note(notes, 'l') ~= nil, message
  end
  local due = eta_of(message)
  if due and tonumber(due) <= now then due = nil end
  return due, false, message
end

-- Take what a list offers; ``full`` if something was left for the next claim.
local function drain(key, step, queue)
  local chunk, before, aside = 1, count, {}
  if step == last_step and step ~= '0' and nothing_else(key) then return end
  while not full do
    local got = redis.call('RPOP', key, chunk)
    if not got then break end
    local back = nil
    for i = 1, #got do
      local message = got[i]
      local due, lost
      if sub(message, 1, 15) ~= PLAIN then due, lost, message = look(message) end
      local size = #message
      if step == last_step and left_to_others(got[i]) then
        aside[#aside + 1] = got[i]
      elseif due then
        delay(base, step, queue, due, message)
        parked = parked + 1
        if parked >= MOST_PARKED then full, back = true, i + 1 end
      elseif lost and count > 0 then
        full, back = true, i
      elseif not exact and used + size <= room or fits(message) then
        if not exact then used = used + size end
        count = count + 1
        taken[count] = message
        if lost or count >= limit then full, back = true, i + 1 end
      else
        full, back = true, i
      end
      if back then break end
    end
    if back then
      for i = #got, back, -1 do redis.call('RPUSH', key, got[i]) end
      break
    end
    chunk = math.max(1, math.min(limit - count, 500))
    if exact then
      chunk = 1
    elseif count > 0 then
      chunk = math.max(1, math.min(chunk, math.floor((room - used) * count / used) + 1))
    end
  end
  for i = 1, #aside do redis.call('LPUSH', key, aside[i]) end
  if count > before then places[#places + 1] = {before + 1, step, queue} end
end

for _, queue in ipairs(asked) do
  if full then break end
  if not paused[queue] then
    promote(base, prefix, separator, queue, now_text)
    local before = parked
    drain(base .. 'front:' .. queue, '0', queue)
    if parked > before then promote(base, prefix, separator, queue, now_text) end
    for step in string.gmatch(ARGV[7], '%d+') do
      -- What was due already when it was found takes its place behind those that wait.
      local moved
      repeat
        if full then break end
        before, moved = parked, 0
        drain(list_key(prefix, separator, step, queue), step, queue)
        if parked > before then moved = promote(base, prefix, separator, queue, now_text) end
      until moved == 0
    end
  end
end

if count == 0 then
  local next_due = ''
  for _, queue in ipairs(asked) do
    local first = redis.call('ZRANGE', base .. 'delayed:' .. queue, 0, 0, 'WITHSCORES')[2]
    if first and not paused[queue] and (next_due == '' or tonumber(first) < tonumber(next_due)) then
      next_due = first
    end
  end
  if next_offered and (next_due == '' or next_offered < tonumber(next_due)) then
    next_due = string.format('%.6f', next_offered)
  end
  if parked >= MOST_PARKED then next_due = '0' end
  return {0, {}, next_due, stopped}
end

local first = redis.call('INCRBY', base .. 'seq', count) - count + 1
local cancelled = {}
if redis.call('EXISTS', base .. 'cancelled') == 1 then
  for i, message in ipairs(taken) do
    local till = redis.call('ZSCORE', base .. 'cancelled', id_of(message))
    if till and tonumber(till) > now then cancelled[#cancelled + 1] = i - 1 end
  end
end

local answer = {first, cancelled, '', stopped}
for number, place in ipairs(places) do
  local last = places[number + 1] and places[number + 1][1] - 1 or count
  local stands, group, fields, n = placed(place[2], place[3], ''), {}, {}, 0
  local mark = mark_of(place[2], place[3])
  for i = place[1], last do
    local message = taken[i]
    group[i - place[1] + 1] = message
    fields[n + 1] = owner .. '/' .. (first + i - 1)
    fields[n + 2] = stands_alone(message, mark) and message or stands .. message
    n = n + 2
    if n >= 1000 then
      redis.call('HSET', held, unpack(fields))
      fields, n = {}, 0
    end
  end
  if n > 0 then redis.call('HSET', held, unpack(fields)) end
  answer[#answer + 1] = place[3]
  answer[#answer + 1] = group
end
return answer
