-- Messages as bytes. Ours begin {"celeriac":"<notes>", with notes like a URL's query, mostly empty:
-- due, run, join, ex, rk, l (losses), r (redelivered), b (begun), n (note), u (left to others until
-- then), why, at, g (the rest is no JSON object but somebody's bytes). Everybody else's reader passes over the key.
-- In flight, delayed and dead, a message stands behind "<step>\0<queue>\0"; or in flight as it is,
-- if it ends as ours do and so says its queue, and comes from the first list (see claim.lua): every
-- string is hashed by Lua, byte by byte.

local AFTER_QUEUE = #'"},"priority":0,"body_encoding":"base64","delivery_tag":"' + 36 + #'"}}'
local MOST_NAMED = 100

-- What our messages have before the last AFTER_QUEUE bytes if they may stand as they are.
local function mark_of(step, queue)
  return step == '0' and #queue <= MOST_NAMED and not string.find(queue, '"', 1, true)
    and '"routing_key":"' .. queue or nil
end

-- May it stand as it is, with this mark (nil: none may)?
local function stands_alone(message, mark)
  return mark and string.byte(message) == 123
    and string.sub(message, -AFTER_QUEUE - #mark, -AFTER_QUEUE - 1) == mark
end

local function notes_of(message)
  local _, last, notes = string.find(message, '^{"celeriac": ?"([^"]*)", ?')
  if last then return notes, string.sub(message, last + 1), true end
  if string.sub(message, 1, 2) == '{"' then return '', string.sub(message, 2), false end
  return 'g=1', message, false
end

local function with_notes(notes, rest)
  return '{"celeriac":"' .. notes .. '",' .. rest
end

local function note(notes, name)
  return string.match('&' .. notes, '&' .. name .. '=([^&]*)')
end

-- Set a note; '' takes it away.
local function noted(notes, name, value)
  local kept = {}
  for key, old in string.gmatch(notes, '([^&=]+)=([^&]*)') do
    if key ~= name then kept[#kept + 1] = key .. '=' .. old end
  end
  if value ~= '' then kept[#kept + 1] = name .. '=' .. value end
  return table.concat(kept, '&')
end

-- It may have been started: our note, and what kombu writes, for a Celery worker that takes it.
local function redelivered(notes, rest)
  local from = 1
  while true do
    local at = string.find(rest, '"properties":', from, true)
    if not at then break end
    from = at + 1
  end
  local _, brace = string.find(rest, '"delivery_info": ?{', from)
  if brace and not string.find(string.match(rest, '^[^{}]*', brace + 1), '"redelivered":', 1, true) then
    local comma = string.find(rest, '^ ?}', brace + 1) and '' or ','
    rest = string.sub(rest, 1, brace) .. '"redelivered":true' .. comma
      .. string.sub(rest, brace + 1)
  end
  return with_notes(noted(notes, 'r', '1'), rest)
end

local function placed(step, queue, message)
  return step .. '\0' .. queue .. '\0' .. message
end

local function place_of(value)
  if string.byte(value) == 123 then
    local before = string.sub(value, -AFTER_QUEUE - MOST_NAMED - 16, -AFTER_QUEUE - 1)
    return '0', string.match(before, '"routing_key":"([^"]*)$'), value
  end
  local first = string.find(value, '\0', 1, true)
  local second = string.find(value, '\0', first + 1, true)
  return string.sub(value, 1, first - 1), string.sub(value, first + 1, second - 1),
    string.sub(value, second + 1)
end

local function list_key(prefix, separator, step, queue)
  if step == '0' then return prefix .. queue end
  return prefix .. queue .. separator .. step
end

-- Add the names of all keys in which messages of a queue wait; ``steps``: joined by ",".
local function add_places(names, base, prefix, separator, steps, queue)
  names[#names + 1] = base .. 'front:' .. queue
  names[#names + 1] = base .. 'delayed:' .. queue
  for step in string.gmatch(steps, '%d+') do
    names[#names + 1] = list_key(prefix, separator, step, queue)
  end
end

-- The task id: what the last "properties" begins with, in our envelopes and in Celery's.
local function id_of(message)
  local found, from = nil, 1
  while true do
    local first, last = string.find(message, '"properties":', from, true)
    if not first then break end
    found, from = last, last + 1
  end
  local id = found and string.match(message, '^ ?{"correlation_id": ?"([^"\\]*)"', found + 1)
  if id then return id end
  local fine, whole = pcall(cjson.decode, message)
  if not fine or type(whole) ~= 'table' then return '' end
  local properties, headers = whole.properties, whole.headers
  if type(properties) == 'table' and type(properties.correlation_id) == 'string' then
    return properties.correlation_id
  end
  if type(headers) == 'table' and type(headers.id) == 'string' then return headers.id end
  return ''
end

-- Put it among the delayed ones of its queue; who waits is told if it is the next one due.
local function delay(base, step, queue, due, message)
  local key = base .. 'delayed:' .. queue
  local number = string.format('%016.0f', redis.call('INCR', base .. 'seq'))
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  redis.call('ZADD', key, due, number .. placed(step, queue, message))
  if not first[2] or tonumber(due) < tonumber(first[2]) then
    -- A key that is watched, and not kept.
    redis.call('SET', base .. 'sooner:' .. queue, '1')
    redis.call('DEL', base .. 'sooner:' .. queue)
  end
end
