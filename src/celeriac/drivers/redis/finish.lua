-- Settle deliveries that are done and bring one record each, or none: nearly all there are.
-- KEYS: 1 base
-- ARGV: 1 lease, 2 owner within it, 3 broker's database, 4 results' database, 5 results' prefix,
--       6 count, then for each: tag, id of the record or "", its run, milliseconds it lasts or "",
--       value, notes that stand beside it or ""
-- Returns: for each 1 (settled) or 0 (lost). The first command is a write that a full server
-- permits.
-- include: put
local held = KEYS[1] .. 'held:' .. ARGV[1]
local owner, elsewhere = ARGV[2] .. '/', ARGV[3] ~= ARGV[4]
local answers, records = {}, {}
for i = 1, tonumber(ARGV[6]) do
  local at = i * 6 + 1
  local settled = redis.call('HDEL', held, owner .. ARGV[at])
  answers[i] = settled
  if settled == 1 and ARGV[at + 1] ~= '' then
    if elsewhere then
      records[#records + 1] = at
    else
      put(ARGV[5], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
    end
  end
end
if #records > 0 then
  redis.call('SELECT', ARGV[4])
  for _, at in ipairs(records) do
    put(ARGV[5], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4], ARGV[at + 5])
  end
  redis.call('SELECT', ARGV[3])
end
return answers
