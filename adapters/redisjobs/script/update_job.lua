-- Moves a job to another state on every copy that is written, starting from the fresher whole copy that the
-- workspace owns, or changes nothing. Every check comes before the first write. Afterwards each schema of the write
-- plan holds one whole copy, equal in fields and expiry.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
--
-- ARGV[1] plan: 'o' old is written, 'n' new is written, 'O' old is looked at, 'N' new is looked at
-- ARGV[2] workspace_id
-- ARGV[3] job_id
-- ARGV[4] the state to move to
-- ARGV[5] the states to move from, each between commas: ',running,pending,'
-- ARGV[6] result, JSON text or ''
-- ARGV[7] error or ''
-- ARGV[8] milliseconds that a finished job is kept, '0' for ever
-- ARGV[9] '1' where the state is final
--
-- Returns
--   1    moved
--   2    moved in the new schema alone: another's record holds the old key  -> collision observed
--   3    nothing to do: the job is there already, with the same outcome
--   0    no such job in this workspace                                      -> fault.NotFound
--   -1   the new hash contradicts its key                                   -> fault.Internal, breach
--   -2   the job's state does not allow the move                            -> fault.Conflict
local plan, ws, id, to = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local has = function(letter) return string.find(plan, letter, 1, true) end

local old, new, foreign
if has('N') then
  new = redis.call('HMGET', KEYS[2], unpack(FIELDS))
  if not new[1] or not new[2] then
    new = nil
  elseif new[1] ~= id or new[2] ~= ws then
    return -1
  end
end
if has('O') then
  old = redis.call('HMGET', KEYS[1], unpack(FIELDS))
  if old[1] ~= id or old[2] ~= ws then
    foreign = old[1] or old[2]
    old = nil
  end
end
local target, mirror = has('o') and KEYS[1], has('n') and KEYS[2]
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
  if (outcome[1] or '') == ARGV[6] and (outcome[2] or '') == ARGV[7] then
    return 3
  end
end
if not from[4] or not string.find(ARGV[5], ',' .. from[4] .. ',', 1, true) then
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
if to == 'running' then
  fields[5], fields[6] = 'started_at', stamp()
elseif ARGV[9] == '1' then
  fields[5], fields[6] = 'finished_at', stamp()
end
if ARGV[6] ~= '' then
  fields[#fields + 1], fields[#fields + 2] = 'result', ARGV[6]
end
if ARGV[7] ~= '' then
  fields[#fields + 1], fields[#fields + 2] = 'error', ARGV[7]
end
redis.call('HSET', target, unpack(fields))
if to == 'pending' then
  redis.call('HDEL', target, 'started_at')
end
if ARGV[9] == '1' and ARGV[8] ~= '0' then
  redis.call('PEXPIRE', target, ARGV[8])
end
if mirror then
  redis.call('COPY', target, mirror, 'REPLACE')
end
return moved
