-- Records by promise 9: a SUCCESS is never replaced, a FAILURE or REVOKED only by another run.
-- A result document ends ,"celeriac":"<notes>"} (x expires at, run unless it is the id, s state and
-- y ready unless the document says them); beside one that is no such document stand its notes.

local function doc_notes(value)
  return string.match(value, ',"celeriac":"([^"]*)"}$')
end

-- In somebody else's document: pickle and msgpack (it comes first, its length before it), YAML.
local function final_state(value)
  local packed = (string.byte(value, 1) or 0) >= 128
  local text = packed and string.sub(value, 1, 64) or '\n' .. value
  for _, name in ipairs({'SUCCESS', 'FAILURE', 'REVOKED'}) do
    for _, before in ipairs(packed and {'status\148\140\7', 'X\7\0\0\0', 'status\167'}
      or {'\nstatus: '}) do
      if string.find(text, before .. name .. (packed and '' or '\n'), 1, true) then return name end
    end
  end
end

-- Saved groups have a key that is whole.
local function result_key(results, id)
  if string.find(id, 'celery-taskset-meta-', 1, true) == 1 then return results .. id end
  return results .. 'celery-task-meta-' .. id
end

local function side_key(key) return key .. '.celeriac' end

-- State and run of what is stored.
local function standing(key, id, value)
  local notes = doc_notes(value)
  local state = string.match(value, '^{"status": ?"([^"\\]*)"')
  if not state then
    notes = redis.call('GET', side_key(key)) or ''
    local digest = string.match(notes, '&h=(%x+)')
    if digest and digest ~= string.sub(redis.sha1hex(value), 1, 16) then notes = nil end
    state = final_state(value)
  end
  local run
  if notes then
    for name, noted_value in string.gmatch(notes, '([^&=]+)=([^&]*)') do
      if name == 's' then state = noted_value end
      if name == 'run' then run = noted_value end
    end
    run = run or id
  elseif string.sub(value, 1, 11) == '{"status":"' then
    run = id -- ours, with nothing to say: others leave a space there
  end
  return state, run
end

-- ``id`` and ``run`` as they stand in notes, ``side``: notes of a value that is no document.
-- Returns false if the record was refused.
local function put(results, id, run, lasts, value, side)
  local key = result_key(results, id)
  local milliseconds = tonumber(lasts)
  if milliseconds and milliseconds <= 0 then return true end
  local stored
  if milliseconds then
    stored = redis.call('SET', key, value, 'NX', 'PX', lasts)
  else
    stored = redis.call('SET', key, value, 'NX')
  end
  if not stored then
    local state, known = standing(key, id, redis.call('GET', key))
    if state == 'SUCCESS' then return false end
    if (state == 'FAILURE' or state == 'REVOKED') and known == run then return false end
    if milliseconds then
      redis.call('SET', key, value, 'PX', lasts)
    else
      redis.call('SET', key, value)
    end
    if side == '' then redis.call('DEL', side_key(key)) end
  end
  if side ~= '' then
    if milliseconds then
      redis.call('SET', side_key(key), side, 'PX', lasts)
    else
      redis.call('SET', side_key(key), side)
    end
  end
  redis.call('PUBLISH', key, value)
  return true
end
