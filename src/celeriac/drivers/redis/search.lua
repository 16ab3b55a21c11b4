-- The messages of some ids in a slice of a list.
-- KEYS: 1 base
-- ARGV: 1 key of the list, 2 first place, 3 last place, 4 number of ids, 5... ids
-- Returns: {places looked at, message, ...}
-- include: messages
local wanted = {}
for i = 5, 4 + tonumber(ARGV[4]) do wanted[ARGV[i]] = true end
local all = redis.call('LRANGE', ARGV[1], ARGV[2], ARGV[3])
local answer = {#all}
for i = #all, 1, -1 do
  if wanted[id_of(all[i])] then answer[#answer + 1] = all[i] end
end
return answer
