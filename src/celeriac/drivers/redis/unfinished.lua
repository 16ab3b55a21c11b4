-- Open joins with a plan of which nobody was told for long; now somebody is.
-- KEYS: 1 base
-- ARGV: 1 results' prefix, 2 seconds, 3 how many at most
-- Returns: id, size, plan and the indexes of the parts that are in, for each
-- include: joins
-- now
local results, answer = ARGV[1], {}
local index = results .. 'celeriac-joins'
local before = string.format('%.6f', now - tonumber(ARGV[2]))
for _, id in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', before, 'LIMIT', 0, ARGV[3])) do
  local key = join_key(results, id)
  local size, plan = redis.call('GET', key .. '.s'), redis.call('GET', key .. '.celeriac')
  if not size or not plan or redis.call('GET', key .. '.c') == 'done' then
    redis.call('ZREM', index, id)
    redis.call('DEL', key .. '.celeriac')
  else
    redis.call('ZADD', index, now_text, id)
    local lasts = redis.call('PTTL', key .. '.s')
    redis.call('PEXPIRE', key .. '.celeriac', lasts > 0 and math.min(lasts, KEPT_PLAN) or KEPT_PLAN)
    local parts, there = redis.call('ZRANGE', key .. '.j', 0, -1, 'WITHSCORES'), {}
    for i = 2, #parts, 2 do there[#there + 1] = parts[i] end
    answer[#answer + 1] = {id, size, plan, there}
  end
end
return answer
