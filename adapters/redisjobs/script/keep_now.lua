-- Part of the scripts that let the migration's gates know of something.

-- keep_now keeps under a key when that last happened, in microseconds since 1970.
local function keep_now(key)
  local clock = redis.call('TIME')
  redis.call('SET', key, clock[1] .. string.sub('00000', #clock[2]) .. clock[2])
end
