-- Give a message to an owner outside of a claim. What is handed is told as number, queue, message,
-- "1" if its id is cancelled.
local function tell(base, number, queue, message, answer)
  local till = redis.call('ZSCORE', base .. 'cancelled', id_of(message))
  answer[#answer + 1] = number
  answer[#answer + 1] = queue
  answer[#answer + 1] = message
  answer[#answer + 1] = (till and tonumber(till) > now) and '1' or ''
end

local function hand(base, lease, owner, step, queue, message, answer)
  local number = redis.call('INCR', base .. 'seq')
  redis.call('HSET', base .. 'held:' .. lease, owner .. '/' .. number,
    placed(step, queue, message))
  tell(base, number, queue, message, answer)
end

local function lost_once_more(message)
  local notes, rest = notes_of(message)
  local losses = tonumber(note(notes, 'l') or 0) + 1
  notes = noted(notes, 'l', string.format('%d', losses))
  return redelivered(notes, rest), losses, note(notes, 'b') ~= nil
end
