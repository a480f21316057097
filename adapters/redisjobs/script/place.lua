-- Part of the scripts that keep the index ai:index:{workspace_id}. An entry is a letter and a place: whole seconds since
-- 1970 in five bytes, the highest first, microseconds in six digits, and the bytes that order the job's id. Byte order is
-- the order of job.Place. Every job has an entry under z, behind all others, and one under the letter of its state.

-- seconds_in_bytes writes the first five bytes of a place.
local function seconds_in_bytes(seconds)
  local e = seconds % 256
  seconds = (seconds - e) / 256
  local d = seconds % 256
  seconds = (seconds - d) / 256
  local c = seconds % 256
  seconds = (seconds - c) / 256
  local b = seconds % 256
  return string.char((seconds - b) / 256, b, c, d, e)
end
