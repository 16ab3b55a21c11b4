-- Messages, several lists, keys and joins: all or none (one plain list takes a bare LPUSH).
-- KEYS: 1 base
-- ARGV: 1 prefix, 2 separator, 3 window of keys, 4 broker's database, 5 results' database,
--       6 results' prefix, 7 number of joins, 8 of messages; for each join: id, size, milliseconds
--       it lasts or "", plan or ""; for each message: see add
-- Returns: how many were not dropped by their key. A message with a due time is pushed to its list
-- (its notes say when), where whoever claims it parks it; so that Celery's workers see it too.
-- include: messages
-- include: joins
-- now
-- include: adding
local base, at = KEYS[1], 9
local joins = tonumber(ARGV[7])
if joins > 0 then
  local elsewhere = ARGV[4] ~= ARGV[5]
  if elsewhere then redis.call('SELECT', ARGV[5]) end
  for _ = 1, joins do
    open_join(ARGV[6], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], now_text)
    at = at + 4
  end
  if elsewhere then redis.call('SELECT', ARGV[4]) end
end
local added = 0
for _ = 1, tonumber(ARGV[8]) do
  added = added + add(base, ARGV[1], ARGV[2], ARGV[3], ARGV[at], ARGV[at + 1], '', ARGV[at + 3],
    ARGV[at + 4])
  at = at + 5
end
return added
