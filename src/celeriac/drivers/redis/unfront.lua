-- What somebody was woken for who does not claim it goes back to the list of its queue, where it
-- wakes somebody else.
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 queue
-- Returns: how many messages went back
local front, count = KEYS[1] .. 'front:' .. ARGV[2], 0
while redis.call('LMOVE', front, ARGV[1] .. ARGV[2], 'LEFT', 'RIGHT') do count = count + 1 end
return count
