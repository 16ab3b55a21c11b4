-- What is in flight, in the order of the claims.
-- KEYS: 1 base
-- ARGV: 1 queue or "", 2 number after which to begin, 3 how many
-- Returns: number, queue, message, ...
-- include: messages
-- include: leases
local base, all = KEYS[1], {}
for _, lease in ipairs(redis.call('ZRANGE', base .. 'leases', 0, -1)) do
  for _, one in ipairs(numbers_of(base .. 'held:' .. lease)) do
    if one[1] > tonumber(ARGV[2]) then all[#all + 1] = {one[1], base .. 'held:' .. lease, one[2]} end
  end
end
table.sort(all, function(a, b) return a[1] < b[1] end)
local answer = {}
for _, one in ipairs(all) do
  if #answer >= 3 * tonumber(ARGV[3]) then break end
  local _, queue, message = place_of(redis.call('HGET', one[2], one[3]))
  if ARGV[1] == '' or ARGV[1] == queue then
    answer[#answer + 1] = one[1]
    answer[#answer + 1] = queue
    answer[#answer + 1] = message
  end
end
return answer
