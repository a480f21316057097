-- Makes a job, its queue entry, its index entries and its idempotency key, or none of them. Every check comes before
-- the first write, and RPUSH is that first write: it is the one that can still fail on a wrong type or on memory, and
-- then nothing was written.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:queue:pending
-- KEYS[4] ai:index:{workspace_id}
-- KEYS[5] ai:idempotency:{workspace_id}:{client_request_id}   with a client_request_id only; kept for 86 400 s
-- KEYS[6] ai:jobs:{known}                                     with a known job only
-- KEYS[7] ai:job:{workspace_id}:{known}                       with a known job only
--
-- ARGV[1] workspace_id
-- ARGV[2] job_id
-- ARGV[3] a recent whole second since 1970
-- ARGV[4] that second as text, YYYY-MM-DDTHH:MM:SS
-- ARGV[5] action_provider
-- ARGV[6] action_name
-- ARGV[7] params, JSON text
-- ARGV[8] actor_id
-- ARGV[9] traceparent, '' for none
-- ARGV[10] the second of ARGV[3] as a place begins with it, five bytes
-- ARGV[11] the bytes that order job_id
-- ARGV[12] client_request_id, with KEYS[5] only
-- ARGV[13] known: the job that KEYS[5] named a moment ago, with KEYS[6] only
--
-- WRITE_OLD, WRITE_NEW, LOOK_OLD and LOOK_NEW are the phase's plan; what is written or read is looked at.
--
-- Returns
--   1           made, now or by a lost earlier try with the same job_id
--   2           made in the new schema alone: another's record holds the old key       -> collision observed
--   0           not made: another's record holds the only key to write                 -> fault.Conflict
--   -1          not made: a hash contradicts the workspace or the id of its key        -> fault.Internal, breach
--   {id}        not made: KEYS[5] names this job; call again with its keys
--   {id, workspace_id, action_provider, action_name, params}   not made: this job was made for KEYS[5]
--   error       not made: Redis would not say whether the known job is held                 -> as Redis' own
local call = redis.call
local idempotency, ws, id = KEYS[5], ARGV[1], ARGV[2]
local write_old = WRITE_OLD

if idempotency then
  local known = call('GET', idempotency)
  if known == id then
    return 1
  end
  if known and #known > 0 and #known <= 256 then
    if known ~= ARGV[13] then
      return {known}
    end
    -- Whatever the plan, the known job is gone only where neither schema holds it for this workspace.
    for i = 6, 7 do
      local reply = redis.pcall('HMGET', KEYS[i], 'job_id', 'workspace_id', 'action_provider', 'action_name', 'params')
      if reply.err then
        if not string.find(reply.err, 'WRONGTYPE', 1, true) then
          return reply
        end
      elseif reply[1] == known and reply[2] == ws then
        return {reply[1], reply[2], reply[3] or '', reply[4] or '', reply[5] or ''}
      elseif i == 7 and (reply[1] or '') ~= '' and (reply[2] or '') ~= '' then
        return -1
      end
    end
  end
end

local old, new = KEYS[1], KEYS[2]
local made, taken = 1
if not LOOK_OLD then
  taken = call('EXISTS', new)
elseif not LOOK_NEW then
  taken = call('EXISTS', old)
else
  taken = call('EXISTS', old, new)
end
if taken > 0 then
  -- A new id is taken only by an earlier try whose reply was lost, or by a record that nobody should have written.
  if LOOK_NEW then
    local held = call('HMGET', new, 'job_id', 'workspace_id')
    if held[1] == id and held[2] == ws then
      return 1
    elseif (held[1] or '') ~= '' and (held[2] or '') ~= '' then
      return -1
    end
  end
  if LOOK_OLD then
    local held = call('HMGET', old, 'job_id', 'workspace_id')
    if held[1] == id and held[2] == ws then
      return 1
    elseif (held[1] or '') ~= '' or (held[2] or '') ~= '' then
      if not WRITE_NEW then
        return 0
      end
      made, write_old = 2, false
    end
  end
end

-- The job comes behind every other of its workspace, whatever the clocks of servers and of Redis do, unless an entry
-- lies more than a minute ahead: that one is left out of it.
local index, now = KEYS[4], call('TIME')
local second, micros = now[1], now[2]
if #micros < 6 then
  micros = string.sub('00000', #micros) .. micros
end
local at = (second == ARGV[3] and ARGV[10] or seconds_in_bytes(second)) .. micros
if call('ZLEXCOUNT', index, '[z' .. at, '+') > 0 then
  local ahead = '(z' .. seconds_in_bytes(second + 60) .. micros
  local newest = call('ZREVRANGEBYLEX', index, ahead, '[z' .. at, 'LIMIT', '0', '1')[1]
  if newest then
    local a, b, c, d, e = string.byte(newest .. '\0\0\0\0\0', 2, 6)
    second = (((a * 256 + b) * 256 + c) * 256 + d) * 256 + e
    micros = string.match(newest, '^......(%d%d%d%d%d%d)') -- none where Relay did not write the entry
    micros = (micros and tonumber(micros) or 999999) + 1
    if micros == 1000000 then
      second, micros = second + 1, 0
    end
    at = seconds_in_bytes(second)
    second, micros = string.format('%.0f', second), string.format('%06.0f', micros)
    at = at .. micros
  end
end
local enqueued = stamp(second, micros, ARGV[3], ARGV[4])
-- A queue entry is a bare id where the old schema holds the job: workers that know only that one may take it.
call('RPUSH', KEYS[3], write_old and id or ws .. ':' .. id)
if taken > 0 then
  -- Only stubs are left: nothing of them may show through the whole copies.
  if write_old then call('DEL', old) end
  if WRITE_NEW then call('DEL', new) end
end
local first = write_old and old or new
if idempotency then
  call('HSET', first, 'job_id', id, 'status', 'pending', 'action_provider', ARGV[5], 'action_name', ARGV[6],
    'params', ARGV[7], 'workspace_id', ws, 'actor_id', ARGV[8], 'result', '', 'enqueued_at', enqueued, 'rev', '1',
    'client_request_id', ARGV[12])
  call('SETEX', idempotency, '86400', id)
else
  call('HSET', first, 'job_id', id, 'status', 'pending', 'action_provider', ARGV[5], 'action_name', ARGV[6],
    'params', ARGV[7], 'workspace_id', ws, 'actor_id', ARGV[8], 'result', '', 'enqueued_at', enqueued, 'rev', '1')
end
if ARGV[9] ~= '' then
  call('HSET', first, 'traceparent', ARGV[9])
end
if write_old and WRITE_NEW then
  call('COPY', old, new)
end
call('ZADD', index, '0', 'z' .. at .. ARGV[11], '0', 'p' .. at .. ARGV[11])
return made
