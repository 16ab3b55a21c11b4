-- Joins, in Celery's chord keys (P = results' prefix .. "celery-taskset-meta-" .. id): P.s size,
-- P.t parts added later, P.j the parts by index, P.d who they were, P.c who is about to complete
-- it, or "done". Of ours: P.celeriac the plan of an open join, and (results' prefix ..
-- "celeriac-joins") those that have one, by when somebody was told last that they are open. An
-- argument list of arrivals is: join, index, id, member of P.j, for each.

local function join_key(results, id) return results .. 'celery-taskset-meta-' .. id end

local KEPT_DONE = 86400000

-- Celery's workers don't remove a plan. Kept only for as long as somebody asks for it from time to
-- time (unfinished.lua), it is no burden where all workers are theirs.
local KEPT_PLAN = 3 * 86400000

local function keep_plan(results, id, plan, lasts, now_text)
  local index, oldest = results .. 'celeriac-joins', tonumber(now_text) - KEPT_PLAN / 1000
  redis.call('SET', join_key(results, id) .. '.celeriac', plan, 'PX', math.min(lasts, KEPT_PLAN))
  redis.call('ZREMRANGEBYSCORE', index, '-inf', string.format('%.6f', oldest))
  redis.call('ZADD', index, now_text, id)
end

local function open_join(results, id, size, lasts, plan, now_text)
  local key = join_key(results, id)
  if redis.call('GET', key .. '.c') == 'done' then return end
  local opened = false
  if lasts == '' then
    opened = redis.call('SET', key .. '.s', size, 'NX')
  elseif tonumber(lasts) > 0 then
    opened = redis.call('SET', key .. '.s', size, 'NX', 'PX', lasts)
  end
  if opened and plan ~= '' then
    keep_plan(results, id, plan, lasts == '' and KEPT_PLAN or tonumber(lasts), now_text)
  end
end

-- The indexes (in ``arrivals``) of those that are parts of this join and not in yet.
local function new_parts(key, id, arrivals, size)
  local new, seen = {}, {}
  for i, arrival in ipairs(arrivals) do
    local index = tonumber(arrival[2])
    if arrival[1] == id and index >= 0 and index < size and not seen[index]
      and redis.call('ZCOUNT', key .. '.j', index, index) == 0 then
      seen[index] = true
      new[#new + 1] = i
    end
  end
  return new
end

-- The first join that these arrivals would complete without its token, as {"C", join, token,
-- indexes of the new arrivals, parts that are in with scores}; {"C", join, "", {}, {}} for one that
-- somebody else completed; nil if there is none.
local function completes(results, arrivals, tokens, fresh)
  local looked = {}
  for _, arrival in ipairs(arrivals) do
    local id = arrival[1]
    if not looked[id] then
      looked[id] = true
      local key = join_key(results, id)
      local size, claim = redis.call('GET', key .. '.s'), redis.call('GET', key .. '.c')
      if claim == 'done' or not size then
        if tokens[id] and claim == 'done' then return {'C', id, '', {}, {}} end
      else
        size = tonumber(size) + tonumber(redis.call('GET', key .. '.t') or 0)
        local new = new_parts(key, id, arrivals, size)
        local there = redis.call('ZCARD', key .. '.j')
        if #new > 0 and there + #new >= size and not (claim and tokens[id] == claim) then
          local lasts = redis.call('PTTL', key .. '.s')
          if lasts > 0 then
            redis.call('SET', key .. '.c', fresh, 'PX', lasts)
          else
            redis.call('SET', key .. '.c', fresh)
          end
          return {'C', id, fresh, new, redis.call('ZRANGE', key .. '.j', 0, -1, 'WITHSCORES')}
        end
      end
    end
  end
  return nil
end

-- Celery's clients open a join just before they send its last part: others may be in by then.
local function early_part(key, arrival)
  if redis.call('ZCOUNT', key .. '.j', arrival[2], arrival[2]) > 0 then return end
  redis.call('ZADD', key .. '.j', arrival[2], arrival[4])
  redis.call('SADD', key .. '.d', arrival[3] .. ':' .. arrival[2])
  redis.call('PEXPIRE', key .. '.j', KEPT_DONE)
  redis.call('PEXPIRE', key .. '.d', KEPT_DONE)
end

-- Note the parts; a join that has them all is closed.
local function count_in(results, arrivals)
  for _, arrival in ipairs(arrivals) do
    local id = arrival[1]
    local key = join_key(results, id)
    local size = redis.call('GET', key .. '.s')
    if redis.call('GET', key .. '.c') == 'done' then
      size = nil
    elseif not size then
      early_part(key, arrival)
    end
    if size then
      size = tonumber(size) + tonumber(redis.call('GET', key .. '.t') or 0)
      if #new_parts(key, id, {arrival}, size) == 1 then
        redis.call('ZADD', key .. '.j', arrival[2], arrival[4])
        redis.call('SADD', key .. '.d', arrival[3] .. ':' .. arrival[2])
        local lasts = redis.call('PTTL', key .. '.s')
        if lasts > 0 then
          redis.call('PEXPIRE', key .. '.j', lasts)
          redis.call('PEXPIRE', key .. '.d', lasts)
        end
        if redis.call('ZCARD', key .. '.j') >= size then
          redis.call('SET', key .. '.c', 'done', 'PX', lasts > 0 and lasts or KEPT_DONE)
          redis.call('DEL', key .. '.j', key .. '.t', key .. '.s', key .. '.d', key .. '.celeriac')
          redis.call('ZREM', results .. 'celeriac-joins', id)
        end
      end
    end
  end
end
