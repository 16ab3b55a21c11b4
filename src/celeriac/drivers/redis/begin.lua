-- Mark deliveries "not again".
-- KEYS: 1 base
-- ARGV: 1 count, then for each: lease, owner within it, tag
-- Returns: for each 1, or 0 if it is no longer held
-- include: messages
-- drains
local answers = {}
for i = 1, tonumber(ARGV[1]) do
  local held = KEYS[1] .. 'held:' .. ARGV[i * 3 - 1]
  local field = ARGV[i * 3] .. '/' .. ARGV[i * 3 + 1]
  local value = redis.call('HGET', held, field)
  answers[i] = value and 1 or 0
  if value then
    local step, queue, message = place_of(value)
    local notes, rest = notes_of(message)
    message = with_notes(noted(notes, 'b', '1'), rest)
    redis.call('HSET', held, field, placed(step, queue, message))
  end
end
return answers
