-- Part of the scripts that compare two copies of a job whole: their fields and their expiries.

-- unwieldy tells whether a hash has far more fields than any job: whoever goes through them holds up all others.
local function unwieldy(key) return redis.call('HLEN', key) > 1000 end

-- same_bytes tells whether two hashes are equal at a glance. Those that are not may still hold the same. DUMP compresses:
-- of large texts it takes longer than to read them.
local function same_bytes(first, second)
  if redis.call('HSTRLEN', first, 'params') + redis.call('HSTRLEN', first, 'result') > 16384 then
    return false
  end
  return redis.call('DUMP', first) == redis.call('DUMP', second)
end

-- contents gives a hash as a table.
local function contents(key)
  local reply, out = redis.call('HGETALL', key), {}
  for i = 1, #reply, 2 do
    out[reply[i]] = reply[i + 1]
  end
  return out
end

-- holds tells whether every field of b stands in a with the same value.
local function holds(a, b)
  for field, value in pairs(b) do
    if a[field] ~= value then return false end
  end
  return true
end

-- sooner gives which of two keys expires first, 1 or 2, and 0 where both do together or never. Redis tells what is left
-- by a clock that goes on, also inside a script, so that only an answer between two equal ones is comparable.
local function sooner(first, second)
  local a, b, again
  repeat
    a, b, again = redis.call('PTTL', first), redis.call('PTTL', second), redis.call('PTTL', first)
  until a == again
  if a == b then return 0 end
  return (b < 0 or a >= 0 and a < b) and 1 or 2
end

-- changed_without_rev tells of two differing copies whether the old one is the fresher whatever their FIELDS say: of one rev
-- above 0 only a writer that does not know rev makes them differ, and it writes old.
local function changed_without_rev(old, new)
  return revision(old[3]) == revision(new[3]) and revision(old[3]) > 0
end

-- tied tells whether nothing tells which of two differing copies is the fresher.
local function tied(old, new)
  return revision(old[3]) == 0 and revision(new[3]) == 0 and not old_is_fresher(old, new) and not old_is_fresher(new, old)
end
