-- Moves a job to another state on every copy that is written, starting from the fresher whole copy that the
-- workspace owns, or changes nothing. Every check comes before the first write. Afterwards each schema of the write
-- plan holds one whole copy, equal in fields and expiry.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
--
-- ARGV[1] '1' where old is written, else ''
-- ARGV[2] '1' where new is written, else ''
-- ARGV[3] '1' where old is looked at, because it is written or read, else ''
-- ARGV[4] '1' where new is looked at, else ''
-- ARGV[5] workspace_id
-- ARGV[6] job_id
-- ARGV[7] the state to move to
-- ARGV[8] the states to move from, each between commas: ',running,pending,'
-- ARGV[9] result, JSON text or ''
-- ARGV[10] error or ''
-- ARGV[11] milliseconds that the job is kept from now on, '' for as long as before
-- ARGV[12] the time that the move sets: 'started_at', 'finished_at', or '' for none
-- ARGV[13] a recent whole minute in seconds since 1970
-- ARGV[14] that minute as text, YYYY-MM-DDTHH:MM:
--
-- Returns
--   1    moved
--   2    moved in the new schema alone: another's record holds the old key  -> collision observed
--   3    nothing to do: the job is there already, with the same outcome
--   0    no such job in this workspace                                      -> fault.NotFound
--   -1   the new hash contradicts its key                                   -> fault.Internal, breach
--   -2   the job's state does not allow the move                            -> fault.Conflict
local ws, id, to, result, problem = ARGV[5], ARGV[6], ARGV[7], ARGV[9], ARGV[10]

local old, new, foreign
if ARGV[4] ~= '' then
  new = redis.call('HMGET', KEYS[2], unpack(FIELDS))
  if (new[1] or '') == '' or (new[2] or '') == '' then
    new = nil
  elseif new[1] ~= id or new[2] ~= ws then
    return -1
  end
end
if ARGV[3] ~= '' then
  old = redis.call('HMGET', KEYS[1], unpack(FIELDS))
  if old[1] ~= id or old[2] ~= ws then
    foreign = (old[1] or '') ~= '' or (old[2] or '') ~= ''
    old = nil
  end
end
local target, mirror = ARGV[1] ~= '' and KEYS[1], ARGV[2] ~= '' and KEYS[2]
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
if from[4] == to then
  local outcome = redis.call('HMGET', base, 'result', 'error')
  if (outcome[1] or '') == result and (outcome[2] or '') == problem then
    return 3
  end
end
if not from[4] or string.find(from[4], ',', 1, true) or
  not string.find(ARGV[8], ',' .. from[4] .. ',', 1, true) then
  return -2
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
local fields = {'status', to, 'rev', string.format('%.0f', revision(from[3]) + 1)}
if ARGV[12] ~= '' then
  fields[5], fields[6] = ARGV[12], stamp(ARGV[13], ARGV[14])
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
if to == 'pending' then
  redis.call('HDEL', target, 'started_at')
end
if ARGV[11] ~= '' then
  redis.call('PEXPIRE', target, ARGV[11])
end
if mirror then
  redis.call('COPY', target, mirror, 'REPLACE')
end
return moved
