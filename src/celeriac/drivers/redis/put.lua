-- Records by promise 9: a SUCCESS is never replaced, a FAILURE or REVOKED only by another run.
-- A result document ends ,"celeriac":"<notes>"} (x expires at, run unless it is the id, s state and
-- y ready unless the document says them); beside one that is no such document stand its notes.

local function doc_notes(value)
  return string.match(value, ',"celeriac":"([^"]*)"}$')
end

local function side_key(key) return key .. '.celeriac' end

-- State and run of what is stored.
local function standing(key, id, value)
  local notes = doc_notes(value)
  local state = string.match(value, '^{"status": ?"([^"\\]*)"')
  if not state then
    notes = redis.call('GET', side_key(key)) or ''
    local head = string.sub(value, 1, 64)
    for _, name in ipairs({'SUCCESS', 'FAILURE', 'REVOKED'}) do
      if string.find(head, name, 1, true) then state = name end
    end
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
  local key = results .. 'celery-task-meta-' .. id
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
