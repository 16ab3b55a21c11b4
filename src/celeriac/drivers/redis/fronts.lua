-- What somebody was woken for who does not claim it goes back to the list of its queue, where it
-- wakes somebody else. Returns how many messages went back.

local function unfront(base, prefix, queue)
  local front, count = base .. 'front:' .. queue, 0
  while redis.call('LMOVE', front, prefix .. queue, 'LEFT', 'RIGHT') do count = count + 1 end
  return count
end
