-- A lease is a score in base.."leases": when it ends; and in base.."workers" what is known of it:
-- ttl, since (from when on it was renewed without a gap), name, host, pid.

local function unpacked(text)
  local parts = {}
  for part in string.gmatch(text .. '\0', '([^%z]*)%z') do parts[#parts + 1] = part end
  return parts
end

-- Renew it; false if it is not there.
local function renew(base, lease, worker)
  local ends = redis.call('ZSCORE', base .. 'leases', lease)
  local known = redis.call('HGET', base .. 'workers', lease)
  if not worker and (not ends or not known) then return false end
  worker = worker or unpacked(known)
  local since = now_text
  if ends and known and tonumber(ends) > now then since = unpacked(known)[2] end
  worker[2] = since
  redis.call('ZADD', base .. 'leases', string.format('%.6f', now + tonumber(worker[1])), lease)
  local written = table.concat(worker, '\0')
  if written ~= known then redis.call('HSET', base .. 'workers', lease, written) end
  return true
end

-- The numbers in flight of a lease, and of one of its owners if given, in the order of the claims.
local function numbers_of(held, owner)
  local found = {}
  for _, field in ipairs(redis.call('HKEYS', held)) do
    local whose, number = string.match(field, '^(.*)/(%d+)$')
    if not owner or whose == owner then
      found[#found + 1] = {tonumber(number), field}
    end
  end
  table.sort(found, function(a, b) return a[1] < b[1] end)
  return found
end
