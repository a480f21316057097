-- Says whether an entry of the index names a job that belongs at its place, in one step, and writes nothing. Whether the
-- entries at a place where the job belongs are right is said by compare_job.lua.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:index:{workspace_id}
--
-- ARGV[1] workspace_id
-- ARGV[2] job_id
-- ARGV[3] the bytes that order job_id
-- ARGV[4] the entry
--
-- Returns
--   0        a copy of the job belongs there, or the entry is gone
--   1        copies of the job are stored, and belong elsewhere
--   2        neither schema holds the job for this workspace, though none was to go: it has no entry of one that is finished,
--            or something else lies under a key of it. What another workspace has in new alone is not looked at
--   3        a finished job is gone, as where it has expired
--   error    Redis would not say whether the job is held  -> as Redis' own
local held, place = false, string.sub(ARGV[4], 2)
for i = 1, 2 do
  local reply = redis.pcall('HMGET', KEYS[i], 'job_id', 'workspace_id', 'enqueued_at')
  if reply.err then
    if not string.find(reply.err, 'WRONGTYPE', 1, true) then
      return reply
    end
  elseif reply[1] == ARGV[2] and reply[2] == ARGV[1] then
    held = true
    if place_of(reply[3], ARGV[3]) == place then
      return 0
    end
  end
end
if redis.call('TYPE', KEYS[3]).ok ~= 'zset' or not redis.call('ZSCORE', KEYS[3], ARGV[4]) then
  return 0
end
if held then
  return 1
end
-- The move that finishes a job, and lets it expire, leaves such an entry.
local finished = redis.call('ZSCORE', KEYS[3], LETTER.completed .. place) or redis.call('ZSCORE', KEYS[3], LETTER.failed .. place)
if not finished or redis.call('EXISTS', KEYS[1], KEYS[2]) > 0 then
  return 2
end
return 3
