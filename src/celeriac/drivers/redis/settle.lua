-- Settle deliveries: each whole or not at all, in order.
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 separator, 3 window of keys, 4 broker's database, 5 results' database,
--       6 results' prefix, 7 steps joined by ",", 8 number of queues of which nothing may wait where
--       a message is kept; these queues; count; then for each: lease, owner within it, tag, verdict
--       (done, defer, release, bury), due or "", note, reason (defer: step of the list in which
--       others may take it till then, or ""), a fresh token or "", numbers of records, messages,
--       joins, arrivals and tokens, id of the message that the owner may keep or ""; then these:
--       records (id, run, milliseconds, value, notes beside it), messages (see add), joins (id,
--       size, milliseconds, plan), arrivals (join, index, id, member), tokens (join, token)
-- Returns: for each "S", "L" (lost), the number of the message that is kept, or {"C", ...} (see
-- completes). The first command is a write that a full server permits.
-- include: messages
-- include: put
-- include: joins
-- now
-- include: adding
local base, prefix, separator = KEYS[1], ARGV[1], ARGV[2]
local results, elsewhere = ARGV[6], ARGV[4] ~= ARGV[5]
-- drains

local function in_results(call, ...)
  if not elsewhere then return call(...) end
  redis.call('SELECT', ARGV[5])
  local answer = call(...)
  redis.call('SELECT', ARGV[4])
  return answer
end

local at = 9 + tonumber(ARGV[8])
local settlements = tonumber(ARGV[at])
at = at + 1
local function rows(count, width)
  local all = {}
  for i = 1, count do
    local row = {}
    for j = 1, width do row[j] = ARGV[at + j - 1] end
    all[i], at = row, at + width
  end
  return all
end

local released = {}
local buried = 0

local function judge(verdict, value, due, note_text, reason)
  if verdict == 'done' then return end
  local step, queue, message = place_of(value)
  local notes, rest = notes_of(message)
  if verdict == 'bury' then
    notes = noted(noted(notes, 'why', reason), 'at', now_text)
    local number = string.format('%016.0f', redis.call('INCR', base .. 'seq'))
    redis.call('ZADD', base .. 'dead', string.format('%.6f', now + buried * 0.000001),
      number .. placed(step, queue, with_notes(notes, rest)))
    redis.call('HINCRBY', base .. 'dead_counts', queue, 1)
    buried = buried + 1
    return
  end
  local changed = note(notes, 'b') ~= nil
  if verdict == 'defer' then
    changed = changed or (note(notes, 'n') or '') ~= note_text
    notes = noted(notes, 'n', note_text)
  end
  if changed then message = with_notes(noted(notes, 'b', ''), rest) end
  if verdict == 'release' then
    released[#released + 1] = {list_key(prefix, separator, step, queue), message}
  elseif due ~= '' and tonumber(due) > now and reason ~= '' then
    local notes_now = notes_of(message)
    message = with_notes(noted(notes_now, 'u', due), rest)
    redis.call('LPUSH', list_key(prefix, separator, reason, queue), message)
  elseif due ~= '' and tonumber(due) > now then
    delay(base, step, queue, due, message)
  else
    redis.call('LPUSH', list_key(prefix, separator, step, queue), message)
  end
end

-- Put a message into its owner's hands instead of its queue; nil: something waits there, or it is
-- not to run.
local function keep(held, owner, id, row)
  local queue, step, message = row[1], row[2], row[5]
  local keys = {}
  for i = 9, 8 + tonumber(ARGV[8]) do
    add_places(keys, base, prefix, separator, ARGV[7], ARGV[i])
  end
  if #released > 0 or #keys > 1000 or redis.call('EXISTS', unpack(keys)) > 0 then return nil end
  if redis.call('SISMEMBER', base .. 'paused', queue) == 1 then return nil end
  local till = redis.call('ZSCORE', base .. 'cancelled', id)
  if till and tonumber(till) > now then return nil end
  local number = redis.call('INCR', base .. 'seq')
  local alone = stands_alone(message, mark_of(step, queue))
  redis.call('HSET', held, owner .. '/' .. number, alone and message or placed(step, queue, message))
  return number
end

local answers = {}
for i = 1, settlements do
  local head = rows(1, 14)[1]
  local records, messages = rows(tonumber(head[9]), 5), rows(tonumber(head[10]), 5)
  local joins, arrivals = rows(tonumber(head[11]), 4), rows(tonumber(head[12]), 4)
  local tokens = {}
  for _, row in ipairs(rows(tonumber(head[13]), 2)) do tokens[row[1]] = row[2] end
  local held, field = base .. 'held:' .. head[1], head[2] .. '/' .. head[3]
  local value = true -- what is done need not be read once more
  if head[4] ~= 'done' then
    value = redis.call('HGET', held, field)
  elseif redis.call('HEXISTS', held, field) == 0 then
    value = false
  end
  if not value then
    answers[i] = 'L'
  else
    local told = nil
    if #joins + #arrivals > 0 then
      told = in_results(function()
        for _, row in ipairs(joins) do
          open_join(results, row[1], row[2], row[3], row[4], now_text)
        end
        local found = completes(results, arrivals, tokens, head[8])
        if not found then count_in(results, arrivals) end
        return found
      end)
    end
    if told then
      answers[i] = told
    else
      answers[i] = 'S'
      redis.call('HDEL', held, field)
      if #records > 0 then
        in_results(function()
          for _, row in ipairs(records) do
            put(results, row[1], row[2], row[3], row[4], row[5])
          end
        end)
      end
      judge(head[4], value, head[5], head[6], head[7])
      local kept = head[14] ~= '' and keep(held, head[2], head[14], messages[1])
      if kept then
        answers[i] = kept
      else
        for _, row in ipairs(messages) do
          add(base, prefix, separator, ARGV[3], row[1], row[2], row[3], row[4], row[5])
        end
      end
    end
  end
end
for i = #released, 1, -1 do redis.call('RPUSH', released[i][1], released[i][2]) end
return answers
