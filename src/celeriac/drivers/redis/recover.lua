-- Move to a new owner of the same worker what a dead one held, under its numbers, by which the
-- worker knows what was running; that has been lost.
-- The same owner twice: only tell what it holds.
-- KEYS: 1 base
-- ARGV: 1 lease of the dead, 2 the dead within it, 3 lease of the new, 4 the new within it,
--       5 count, 6... the numbers that were running
-- Returns: what was handed: see hand
-- include: messages
-- now
-- include: leases
-- include: handing
local base, held, answer, ran = KEYS[1], KEYS[1] .. 'held:' .. ARGV[1], {}, {}
-- drains
for i = 6, 5 + tonumber(ARGV[5]) do ran[ARGV[i]] = true end
for _, one in ipairs(numbers_of(held, ARGV[2])) do
  local step, queue, message = place_of(redis.call('HGET', held, one[2]))
  if ARGV[1] == ARGV[3] and ARGV[2] == ARGV[4] then
    tell(base, one[1], queue, message, answer)
  else
    if ran[string.format('%.0f', one[1])] then
      message = lost_once_more(message)
    else
      local notes, rest = notes_of(message)
      message = redelivered(notes, rest)
    end
    redis.call('HDEL', held, one[2])
    redis.call('HSET', base .. 'held:' .. ARGV[3], string.format('%s/%.0f', ARGV[4], one[1]),
      placed(step, queue, message))
    tell(base, one[1], queue, message, answer)
  end
end
return answer
