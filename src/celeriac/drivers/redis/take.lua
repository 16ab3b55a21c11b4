-- A slice of a list or of the delayed messages of a queue: hand those of some ids, or all, to an
-- owner, or remove them.
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 separator, 3 queue, 4 step, "front" or "delayed", 5 first place to look at,
--       6 number of places, 7 lease, 8 owner within it, 9 "all": hand all, "parts": hand parts of
--       joins and what somebody else's group waits for, remove the others, 10 number of ids (0: any
--       id), 11... ids
-- Returns: {places looked at, how many were taken, how many were removed, handed: see hand};
-- error LEASELOST
-- include: messages
-- now
-- include: handing
local base, queue, place = KEYS[1], ARGV[3], ARGV[4]
-- drains
if not redis.call('ZSCORE', base .. 'leases', ARGV[7]) then
  return redis.error_reply('LEASELOST ' .. ARGV[7])
end
local wanted, any = {}, ARGV[10] == '0'
for i = 11, 10 + tonumber(ARGV[10]) do wanted[ARGV[i]] = true end
local key = base .. 'delayed:' .. queue
if place == 'front' then key = base .. 'front:' .. queue
elseif place ~= 'delayed' then key = list_key(ARGV[1], ARGV[2], place, queue) end
local first, count = tonumber(ARGV[5]), tonumber(ARGV[6])
local delayed = place == 'delayed'
local all = redis.call(delayed and 'ZRANGE' or 'LRANGE', key, first, first + count - 1)

local answer, taken, removed = {#all, 0, 0}, 0, 0
local from, to, step = #all, 1, -1 -- a list's oldest is at its end
if delayed then from, to, step = 1, #all, 1 end
for i = from, to, step do
  local message, line = all[i], place == 'front' and '0' or place
  if delayed then
    local its_step, _, bytes = place_of(string.sub(message, 17))
    line, message = its_step, bytes
  end
  if any or wanted[id_of(message)] then
    local there
    if delayed then there = redis.call('ZREM', key, all[i])
    elseif any then there = 1
    else there = redis.call('LREM', key, 1, all[i]) end
    if there == 1 then
      taken = taken + 1
      local notes, _, ours = notes_of(message)
      if ARGV[9] == 'all' or note(notes, 'join')
        or (not ours and string.find(message, '"group": ?"')) then
        hand(base, ARGV[7], ARGV[8], line, queue, message, answer)
      else
        removed = removed + 1
      end
    end
  end
end
if any and not delayed and #all > 0 then redis.call('LTRIM', key, first + count, -1) end
answer[2], answer[3] = taken, removed
return answer
