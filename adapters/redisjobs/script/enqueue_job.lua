-- Makes a job, its queue entry and its idempotency key, or none of them. Every check comes before the first write,
-- and RPUSH is that first write: it is the one that can still fail on a wrong type or on memory, and then nothing
-- was written.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:queue:pending
-- KEYS[4] ai:idempotency:{workspace_id}:{client_request_id}   with a client_request_id only; kept for 86 400 s
-- KEYS[5] ai:jobs:{known}                                     with a known job only
-- KEYS[6] ai:job:{workspace_id}:{known}                       with a known job only
--
-- ARGV[1] plan, four characters of '1' and '0': old is written, new is written, old is looked at because it is written
--         or read, new is looked at
-- ARGV[2] workspace_id
-- ARGV[3] job_id
-- ARGV[4] a recent whole second since 1970
-- ARGV[5] that second as text, YYYY-MM-DDTHH:MM:SS
-- ARGV[6] action_provider
-- ARGV[7] action_name
-- ARGV[8] params, JSON text
-- ARGV[9] actor_id
-- ARGV[10] traceparent, '' for none
-- ARGV[11] client_request_id, with KEYS[4] only
-- ARGV[12] known: the job that KEYS[4] named a moment ago, with KEYS[5] only
--
-- Returns
--   1           made, now or by a lost earlier try with the same job_id
--   2           made in the new schema alone: another's record holds the old key       -> collision observed
--   0           not made: another's record holds the only key to write                 -> fault.Conflict
--   -1          not made: a hash contradicts the workspace or the id of its key        -> fault.Internal, breach
--   {id}        not made: KEYS[4] names this job; call again with its keys
--   {id, workspace_id, action_provider, action_name, params}   not made: this job was made for KEYS[4]
local call = redis.call
local idempotency, ws, id = KEYS[4], ARGV[2], ARGV[3]
local write_old, write_new, look_old, look_new = string.byte(ARGV[1], 1, 4)
write_old, write_new, look_old, look_new = write_old == 49, write_new == 49, look_old == 49, look_new == 49

if idempotency then
  local known = call('GET', idempotency)
  if known == id then
    return 1
  end
  if known and #known > 0 and #known <= 256 then
    if known ~= ARGV[12] then
      return {known}
    end
    -- Whatever the plan, the known job is gone only where neither schema holds it for this workspace.
    for i = 5, 6 do
      local job = redis.pcall('HMGET', KEYS[i], 'job_id', 'workspace_id', 'action_provider', 'action_name', 'params')
      if not job.err then
        if job[1] == known and job[2] == ws then
          return {job[1], job[2], job[3] or '', job[4] or '', job[5] or ''}
        elseif i == 6 and (job[1] or '') ~= '' and (job[2] or '') ~= '' then
          return -1
        end
      end
    end
  end
end

local old, new = KEYS[1], KEYS[2]
local made, taken = 1
if not look_old then
  taken = call('EXISTS', new)
elseif not look_new then
  taken = call('EXISTS', old)
else
  taken = call('EXISTS', old, new)
end
if taken > 0 then
  -- A new id is taken only by an earlier try whose reply was lost, or by a record that nobody should have written.
  if look_new then
    local held = call('HMGET', new, 'job_id', 'workspace_id')
    if held[1] == id and held[2] == ws then
      return 1
    elseif (held[1] or '') ~= '' and (held[2] or '') ~= '' then
      return -1
    end
  end
  if look_old then
    local held = call('HMGET', old, 'job_id', 'workspace_id')
    if held[1] == id and held[2] == ws then
      return 1
    elseif (held[1] or '') ~= '' or (held[2] or '') ~= '' then
      if not write_new then
        return 0
      end
      made, write_old = 2, false
    end
  end
end

local now = stamp(ARGV[4], ARGV[5])
-- A queue entry is a bare id where the old schema holds the job: workers that know only that one may take it.
call('RPUSH', KEYS[3], write_old and id or ws .. ':' .. id)
if taken > 0 then
  -- Only stubs are left: nothing of them may show through the whole copies.
  if write_old then call('DEL', old) end
  if write_new then call('DEL', new) end
end
local first = write_old and old or new
if idempotency then
  call('HSET', first, 'job_id', id, 'status', 'pending', 'action_provider', ARGV[6], 'action_name', ARGV[7],
    'params', ARGV[8], 'workspace_id', ws, 'actor_id', ARGV[9], 'result', '', 'enqueued_at', now, 'rev', '1',
    'client_request_id', ARGV[11])
  call('SETEX', idempotency, '86400', id)
else
  call('HSET', first, 'job_id', id, 'status', 'pending', 'action_provider', ARGV[6], 'action_name', ARGV[7],
    'params', ARGV[8], 'workspace_id', ws, 'actor_id', ARGV[9], 'result', '', 'enqueued_at', now, 'rev', '1')
end
if ARGV[10] ~= '' then
  call('HSET', first, 'traceparent', ARGV[10])
end
if write_old and write_new then
  call('COPY', old, new)
end
return made
