-- Store records.
-- KEYS: 1 base
-- ARGV: 1 results' prefix, 2 count, then for each: id, run, milliseconds or "", value, notes beside
-- Returns: for each "" if it was stored, else {value that stands, notes beside it or ""}
-- include: put
local answers = {}
for i = 1, tonumber(ARGV[2]) do
  local at = i * 5 - 2
  if put(ARGV[1], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]) then
    answers[i] = ''
  else
    local key = result_key(ARGV[1], ARGV[at])
    answers[i] = {redis.call('GET', key), redis.call('GET', side_key(key)) or ''}
  end
end
return answers
