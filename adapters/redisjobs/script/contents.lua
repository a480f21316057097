-- Part of the scripts that compare two copies of a job whole: their fields and their expiries.

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
