-- Every lease.
-- KEYS: 1 base
-- Returns: for each {lease, when it ends, what is known of it (see leases.lua), in flight, 1 if
-- it is alive}
-- now
-- include: leases
local base, answer = KEYS[1], {}
local all = redis.call('ZRANGE', base .. 'leases', 0, -1, 'WITHSCORES')
for i = 1, #all, 2 do
  answer[#answer + 1] = {all[i], all[i + 1], redis.call('HGET', base .. 'workers', all[i]) or '',
    #numbers_of(base .. 'held:' .. all[i]), tonumber(all[i + 1]) > now and 1 or 0}
end
return answer
