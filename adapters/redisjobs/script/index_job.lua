-- Makes the index say of one job what its stored copies say: the guard behind every mending, by a read, a sweep or a
-- whole pass. Both schemas are asked, whatever is written and read, and each copy has its entry, also where they
-- differ: no entry of a stored job is dropped, and a job is found where the copy that a plan serves has its place.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:index:{workspace_id}
--
-- ARGV[1] workspace_id
-- ARGV[2] job_id
-- ARGV[3] the bytes that order job_id
-- ARGV[4] the place under which the job was met in the index, '' where it was met elsewhere
-- ARGV[5] '1' to say what would be done and do nothing, else ''
--
-- Returns
--   0        nothing to do
--   1        entries were added or dropped
--   2        neither schema holds the job for this workspace: the entries that it was met under were dropped
--   3        the index' key holds another type
--   error    Redis would not say whether the job is held  -> as Redis' own
local held, right, places = false, {}, {}
local function ask_about(place)
  if not right[place] then
    right[place] = {}
    places[#places + 1] = place
  end
end
for i = 1, 2 do
  local reply = redis.pcall('HMGET', KEYS[i], 'job_id', 'workspace_id', 'enqueued_at', 'status')
  if reply.err then
    if not string.find(reply.err, 'WRONGTYPE', 1, true) then
      return reply
    end
  elseif reply[1] == ARGV[2] and reply[2] == ARGV[1] then
    held = true
    local place = place_of(reply[3], ARGV[3])
    ask_about(place)
    right[place].z = true
    if LETTER[reply[4]] then
      right[place][LETTER[reply[4]]] = true
    end
  end
end
if ARGV[4] ~= '' then
  ask_about(ARGV[4])
end
if #places == 0 then
  return 2
end

local entries, wanted = {}, {}
for _, place in ipairs(places) do
  for _, letter in ipairs({'z', 'p', 'r', 'c', 'f'}) do
    entries[#entries + 1] = letter .. place
    wanted[#entries] = right[place][letter] or false
  end
end
local reply = redis.pcall('ZMSCORE', KEYS[3], unpack(entries))
if reply.err then
  if string.find(reply.err, 'WRONGTYPE', 1, true) then
    return 3
  end
  return reply
end
local add, drop = {}, {}
for i, entry in ipairs(entries) do
  if wanted[i] and not reply[i] then
    add[#add + 1] = '0'
    add[#add + 1] = entry
  elseif reply[i] and not wanted[i] then
    drop[#drop + 1] = entry
  end
end
if ARGV[5] == '' then
  if #add > 0 then redis.call('ZADD', KEYS[3], unpack(add)) end
  if #drop > 0 then redis.call('ZREM', KEYS[3], unpack(drop)) end
end
if not held then
  return 2
end
if #add + #drop > 0 then
  return 1
end
return 0
