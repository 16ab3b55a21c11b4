-- What is due takes its place at the end of its line, the longest due first.

local function promote(base, prefix, separator, queue, now_text)
  local key = base .. 'delayed:' .. queue
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', now_text, 'LIMIT', 0, 1000)
  for _, member in ipairs(due) do
    local step, _, message = place_of(string.sub(member, 17))
    redis.call('LPUSH', list_key(prefix, separator, step, queue), message)
  end
  if #due > 0 then redis.call('ZREMRANGEBYRANK', key, 0, #due - 1) end
  return #due
end

-- Days since 1970 of a date of the Gregorian calendar.
local function days(year, month, day)
  if month <= 2 then year, month = year - 1, month + 12 end
  local era = math.floor(year / 400)
  local of_era = year - era * 400
  local of_year = math.floor((153 * (month - 3) + 2) / 5) + day - 1
  return era * 146097 + of_era * 365 + math.floor(of_era / 4) - math.floor(of_era / 100) + of_year
    - 719468
end

-- Epoch seconds of an ISO-8601 time (UTC if it says no zone), or nil.
local function epoch(text)
  local year, month, day, hour, minute, second, rest =
    string.match(text, '^(%d%d%d%d)-(%d%d)-(%d%d)[T ](%d%d):(%d%d):(%d%d)(.*)$')
  if not year then return nil end
  local fraction = string.match(rest, '^%.(%d+)') or '0'
  local sign, hours, minutes = string.match(rest, '([+-])(%d%d):?(%d%d)')
  local seconds = days(tonumber(year), tonumber(month), tonumber(day)) * 86400
    + tonumber(hour) * 3600 + tonumber(minute) * 60 + tonumber(second)
  if sign then
    local shift = tonumber(hours) * 3600 + tonumber(minutes) * 60
    seconds = seconds - (sign == '+' and shift or -shift)
  end
  return string.format('%d.%s', seconds, fraction)
end

-- When somebody else's message wants to run, as text; nil: at once.
local function eta_of(message)
  if not string.find(message, '"eta": "', 1, true) and not string.find(message, '"eta":"', 1, true)
    and not string.find(message, '\\"eta', 1, true) then
    return nil
  end
  local fine, whole = pcall(cjson.decode, message)
  if not fine or type(whole) ~= 'table' or type(whole.headers) ~= 'table' then return nil end
  if type(whole.headers.eta) ~= 'string' then return nil end
  return epoch(whole.headers.eta)
end
