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
local held = false
for i = 1, 2 do
  local reply = redis.pcall('HMGET', KEYS[i], 'job_id', 'workspace_id', 'enqueued_at', 'status')
  if reply.err then
    if not string.find(reply.err, 'WRONGTYPE', 1, true) then
      return reply
    end
  elseif reply[1] == ARGV[2] and reply[2] == ARGV[1] then
    held = true
    ask_about(place_of(reply[3], ARGV[3]), reply[4])
  end
end
if ARGV[4] ~= '' then
  ask_about(ARGV[4])
end
if not is_index(KEYS[3]) then
  return 3
end
local wrong = mend_entries(KEYS[3], ARGV[5] ~= '')
if not held then
  return 2
end
if wrong > 0 then
  return 1
end
return 0
