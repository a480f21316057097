-- Moves a job to another state on every copy that is written, starting from the fresher whole copy that the
-- workspace owns, or changes nothing. Every check comes before the first write. Afterwards each schema of the write
-- plan holds one whole copy, equal in fields and expiry.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:index:{workspace_id}
-- KEYS[4] ai:writer-without-rev
--
-- ARGV[1] workspace_id
-- ARGV[2] job_id
-- ARGV[3] the state to move to
-- ARGV[4] the states to move from, each between commas: ',running,pending,'
-- ARGV[5] result, JSON text or ''
-- ARGV[6] error or ''
-- ARGV[7] milliseconds that the job is kept from now on, '' for as long as before
-- ARGV[8] the time that the move sets: 'started_at', 'finished_at', or '' for none
-- ARGV[9] a recent whole second since 1970
-- ARGV[10] that second as text, YYYY-MM-DDTHH:MM:SS
-- ARGV[11] the bytes that order job_id
--
-- WRITE_OLD, WRITE_NEW, LOOK_OLD and LOOK_NEW are the phase's plan; what is written or read is looked at. A copy outside
-- of it decides nothing but which entries of the index stay.
--
-- Returns
--   1    moved
--   2    moved in the new schema alone: another's record holds the old key  -> collision observed
--   3    nothing to do: the job is there already, with the same outcome
--   0    no such job in this workspace                                      -> fault.NotFound
--   -1   the new hash contradicts its key                                   -> fault.Internal, breach
--   -2   the job's state does not allow the move                            -> fault.Conflict
local ws, id, to, result, problem = ARGV[1], ARGV[2], ARGV[3], ARGV[5], ARGV[6]

local old, new, foreign
if LOOK_NEW then
  new = redis.call('HMGET', KEYS[2], unpack(FIELDS))
  if (new[1] or '') == '' or (new[2] or '') == '' then
    new = nil
  elseif new[1] ~= id or new[2] ~= ws then
    return -1
  end
end
if LOOK_OLD then
  old = redis.call('HMGET', KEYS[1], unpack(FIELDS))
  if old[1] ~= id or old[2] ~= ws then
    foreign = (old[1] or '') ~= '' or (old[2] or '') ~= ''
    old = nil
  end
end
local target, mirror = WRITE_OLD and KEYS[1], WRITE_NEW and KEYS[2]
local moved = 1
if target and foreign then
  target, moved = false, 2
end
if not (old or new) or not (target or mirror) then
  return 0
end

local from, base = new, KEYS[2]
if old and (not new or old_is_fresher(old, new)) then
  from, base = old, KEYS[1]
end
if from[4] == to and (from[8] or '') == result and (from[9] or '') == problem then
  return 3
end
if not from[4] or string.find(from[4], ',', 1, true) or
  not string.find(ARGV[4], ',' .. from[4] .. ',', 1, true) then
  return -2
end

local now
if ARGV[8] ~= '' then
  local clock = redis.call('TIME')
  now = stamp(clock[1], string.sub('00000', #clock[2]) .. clock[2], ARGV[9], ARGV[10])
end

-- ZADD is the first write: it is the one that can still fail on a wrong type or on memory, and then nothing was written.
local place = place_of(from[5], ARGV[11])
redis.call('ZADD', KEYS[3], '0', 'z' .. place, '0', LETTER[to] .. place)
-- A copy that is not written stays what it was, and keeps its entry for a phase that reads it.
local apart, kept = not WRITE_NEW and KEYS[2] or not WRITE_OLD and KEYS[1], false
if apart then
  local reply = redis.pcall('HMGET', apart, 'job_id', 'workspace_id', 'status', 'enqueued_at')
  if reply[1] == id and reply[2] == ws then
    kept = reply[3] == from[4] and place_of(reply[4], ARGV[11]) == place
  else
    apart = nil
  end
end
if not kept then
  redis.call('ZREM', KEYS[3], LETTER[from[4]] .. place)
end

-- The written copy nearest to the base is changed first; the other becomes its copy.
if base == mirror or not target then
  local other = target -- the embedded interpreter of the demo swaps locals wrongly in one assignment
  target = mirror
  mirror = other
end
if base ~= target then
  redis.call('COPY', base, target, 'REPLACE')
end
local fields = {'status', to, 'rev', string.format('%.0f', math.min(revision(from[3]) + 1, 999999999999999))}
if ARGV[8] ~= '' then
  fields[5], fields[6] = ARGV[8], now
end
if result ~= '' then
  fields[#fields + 1] = 'result'
  fields[#fields + 1] = result
end
if problem ~= '' then
  fields[#fields + 1] = 'error'
  fields[#fields + 1] = problem
end
redis.call('HSET', target, unpack(fields))
if ARGV[8] == '' then
  redis.call('HDEL', target, 'started_at')
end
if ARGV[7] ~= '' then
  redis.call('PEXPIRE', target, ARGV[7])
  -- A copy that is not written goes with the others: else a phase that reads it, or a backfill, would bring the job back.
  if apart then
    redis.call('PEXPIRE', apart, ARGV[7])
  end
end
if old and new and (from == old and revision(old[3]) == revision(new[3]) or undecided(old, new)) then
  keep_now(KEYS[4])
end
if mirror then
  redis.call('COPY', target, mirror, 'REPLACE')
end
return moved
