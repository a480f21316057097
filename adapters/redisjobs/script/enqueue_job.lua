-- Makes a job, its queue entry and its idempotency key, or none of them. Every check comes before the first write,
-- and RPUSH is that first write: it is the one that can still fail on a wrong type or on memory, and then nothing
-- was written.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:queue:pending
-- KEYS[4] ai:idempotency:{workspace_id}:{client_request_id}   with a client_request_id only
-- KEYS[5] ai:jobs:{known}                                     with a known job only
-- KEYS[6] ai:job:{workspace_id}:{known}                       with a known job only
--
-- ARGV[1] plan: 'o' old is written, 'n' new is written, 'O' old is looked at, 'N' new is looked at
-- ARGV[2] workspace_id
-- ARGV[3] job_id
-- ARGV[4] queue entry
-- ARGV[5] seconds that the idempotency key is kept
-- ARGV[6] known: the job that KEYS[4] named a moment ago, '' for none
-- ARGV[7..] the hash's fields and values, without enqueued_at
--
-- Returns
--   1           made, now or by a lost earlier try with the same job_id
--   2           made in the new schema alone: another's record holds the old key       -> collision observed
--   0           not made: another's record holds the only key to write                 -> fault.Conflict
--   -1          not made: a hash contradicts the workspace or the id of its key        -> fault.Internal, breach
--   {id}        not made: KEYS[4] names this job; call again with its keys
--   {id, action_provider, action_name, params}   not made: this job of the workspace was made for KEYS[4]
local plan, ws, id = ARGV[1], ARGV[2], ARGV[3]
local has = function(letter) return string.find(plan, letter, 1, true) end

if KEYS[4] then
  local known = redis.call('GET', KEYS[4])
  if known == id then
    return 1
  end
  if known and #known > 0 and #known <= 256 then
    if known ~= ARGV[6] then
      return {known}
    end
    -- Whatever the plan, the known job is gone only where neither schema holds it for this workspace.
    for i = 6, 5, -1 do
      local job = redis.pcall('HMGET', KEYS[i], 'job_id', 'workspace_id', 'action_provider', 'action_name', 'params')
      if not job.err then
        if job[1] == known and job[2] == ws then
          return {known, job[3] or '', job[4] or '', job[5] or ''}
        elseif i == 6 and job[1] and job[2] then
          return -1
        end
      end
    end
  end
end

local old, new = has('o') and KEYS[1], has('n') and KEYS[2]
local made, rebuild = 1, false
local taken
if has('O') and has('N') then
  taken = redis.call('EXISTS', KEYS[1], KEYS[2])
else
  taken = redis.call('EXISTS', has('O') and KEYS[1] or KEYS[2])
end
if taken > 0 then
  -- A new id is taken only by an earlier try whose reply was lost, or by a record that nobody should have written.
  rebuild = true
  if has('N') then
    local held = redis.call('HMGET', KEYS[2], 'job_id', 'workspace_id')
    if held[1] == id and held[2] == ws then
      return 1
    elseif held[1] and held[2] then
      return -1
    end
  end
  if has('O') then
    local held = redis.call('HMGET', KEYS[1], 'job_id', 'workspace_id')
    if held[1] == id and held[2] == ws then
      return 1
    elseif held[1] or held[2] then
      if not new then
        return 0
      end
      made, old = 2, false
    end
  end
end

local now = stamp()
redis.call('RPUSH', KEYS[3], ARGV[4])
for _, key in ipairs({old or new, old and new or nil}) do
  if rebuild then
    redis.call('DEL', key)
  end
  redis.call('HSET', key, 'enqueued_at', now, unpack(ARGV, 7))
end
if KEYS[4] then
  redis.call('SET', KEYS[4], id, 'EX', ARGV[5])
end
return made
