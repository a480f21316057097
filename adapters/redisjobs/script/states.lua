-- Part of the scripts that change entries of the index; it follows place.lua and version.lua.

local LETTER = {pending = 'p', running = 'r', completed = 'c', failed = 'f'}

-- place_of gives the place of a job from its stored enqueued_at and the bytes that order its id.
local function place_of(enqueued_at, id)
  local at = instant(enqueued_at)
  return seconds_in_bytes(tonumber(string.sub(at, 1, 12))) .. string.sub(at, 13) .. id
end
