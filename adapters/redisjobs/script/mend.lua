-- Part of the scripts that mend the index; it follows entries.lua.

-- mend_entries makes the entries of the places in question what they should be, and gives how many were wrong. dry
-- changes nothing.
local function mend_entries(index, dry)
  local missing, extra = wrong_entries(index)
  if not dry then
    local add = {}
    for _, entry in ipairs(missing) do
      add[#add + 1] = '0'
      add[#add + 1] = entry
    end
    if #add > 0 then redis.call('ZADD', index, unpack(add)) end
    if #extra > 0 then redis.call('ZREM', index, unpack(extra)) end
  end
  return #missing + #extra
end
