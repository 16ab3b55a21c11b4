-- Put a message in: an argument list of one is: queue, step, due or "", key or "", bytes. A key that
-- was seen within the window drops it. Returns 1, or 0 if it was dropped.
local function add(base, prefix, separator, window, queue, step, due, key, message)
  if key ~= '' then
    local till = redis.call('ZSCORE', base .. 'keys', key)
    if till and tonumber(till) > now then return 0 end
    redis.call('ZADD', base .. 'keys', string.format('%.6f', now + tonumber(window)), key)
  end
  if due ~= '' and tonumber(due) > now then
    delay(base, step, queue, due, message)
  else
    redis.call('LPUSH', list_key(prefix, separator, step, queue), message)
  end
  return 1
end
