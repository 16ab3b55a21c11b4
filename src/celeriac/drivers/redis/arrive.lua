-- Open joins, or count parts in, outside of a settlement.
-- KEYS: 1 base
-- ARGV: 1 results' prefix, 2 number of joins, 3 of arrivals, 4 of tokens; joins: id, size,
--       milliseconds or "", plan or ""; arrivals: join, index, id, member, fresh token; tokens: join, token
-- Returns: for each arrival "" or {"C", ...}: see completes
-- include: joins
-- now
local results, at, answers, tokens = ARGV[1], 5, {}, {}
for _ = 1, tonumber(ARGV[2]) do
  open_join(results, ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], now_text)
  at = at + 4
end
local arrivals, fresh = {}, {}
for i = 1, tonumber(ARGV[3]) do
  arrivals[i] = {ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]}
  fresh[i], at = ARGV[at + 4], at + 5
end
for _ = 1, tonumber(ARGV[4]) do
  tokens[ARGV[at]] = ARGV[at + 1]
  at = at + 2
end
for i, arrival in ipairs(arrivals) do
  local told = completes(results, {arrival}, tokens, fresh[i])
  if not told then count_in(results, {arrival}) end
  answers[i] = told or ''
end
return answers
