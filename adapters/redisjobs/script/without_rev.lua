-- Part of the scripts that take over what somebody without rev may have changed.

-- wrote_without_rev keeps when it was last seen that somebody who does not know rev had changed an old copy.
local function wrote_without_rev(key)
  local clock = redis.call('TIME')
  redis.call('SET', key, clock[1] .. string.sub('00000', #clock[2]) .. clock[2])
end
