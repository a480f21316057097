-- Moves a job to another state on every copy that is written, starting from the fresher whole copy that the
-- workspace owns, or changes nothing. Every check comes before the first write. Afterwards each schema of the write
-- plan holds one whole copy, equal in fields and expiry.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
--
-- ARGV[1] plan, four characters of '1' and '0': old is written, new is written, old is looked at because it is written
--         or read, new is looked at
-- ARGV[2] workspace_id
-- ARGV[3] job_id
-- ARGV[4] the state to move to
-- ARGV[5] the states to move from, each between commas: ',running,pending,'
-- ARGV[6] result, JSON text or ''
-- ARGV[7] error or ''
-- ARGV[8] milliseconds that the job is kept from now on, '' for as long as before
-- ARGV[9] the time that the move sets: 'started_at', 'finished_at', or '' where it takes started_at away
-- ARGV[10] a recent whole second since 1970
-- ARGV[11] that second as text, YYYY-MM-DDTHH:MM:SS
--
-- Returns
--   1    moved
--   2    moved in the new schema alone: another's record holds the old key  -> collision observed
--   3    nothing to do: the job is there already, with the same outcome
--   0    no such job in this workspace                                      -> fault.NotFound
--   -1   the new hash contradicts its key                                   -> fault.Internal, breach
--   -2   the job's state does not allow the move                            -> fault.Conflict
local ws, id, to, result, problem = ARGV[2], ARGV[3], ARGV[4], ARGV[6], ARGV[7]
local write_old, write_new, look_old, look_new = string.byte(ARGV[1], 1, 4)

local old, new, foreign
if look_new == 49 then
  new = redis.call('HMGET', KEYS[2], unpack(FIELDS))
  if (new[1] or '') == '' or (new[2] or '') == '' then
    new = nil
  elseif new[1] ~= id or new[2] ~= ws then
    return -1
  end
end
if look_old == 49 then
  old = redis.call('HMGET', KEYS[1], unpack(FIELDS))
  if old[1] ~= id or old[2] ~= ws then
    foreign = (old[1] or '') ~= '' or (old[2] or '') ~= ''
    old = nil
  end
end
local target, mirror = write_old == 49 and KEYS[1], write_new == 49 and KEYS[2]
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
  not string.find(ARGV[5], ',' .. from[4] .. ',', 1, true) then
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
local fields = {'status', to, 'rev', string.format('%.0f', math.min(revision(from[3]) + 1, 999999999999999))}
if ARGV[9] ~= '' then
  fields[5], fields[6] = ARGV[9], stamp(ARGV[10], ARGV[11])
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
if ARGV[9] == '' then
  redis.call('HDEL', target, 'started_at')
end
if ARGV[8] ~= '' then
  redis.call('PEXPIRE', target, ARGV[8])
end
if mirror then
  redis.call('COPY', target, mirror, 'REPLACE')
end
return moved
