-- Removes a job's old copy where its new copy is whole, and equal or fresher. The job's index entries follow in the same
-- step, and the time of the last removal is kept: no copy to the old schema before it counts any more. What cannot be
-- decided, what is not the workspace's and what new does not hold stays as it is.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:index:{workspace_id}
-- KEYS[4] ai:retired
--
-- ARGV[1] workspace_id
-- ARGV[2] job_id
-- ARGV[3] the bytes that order job_id
-- ARGV[4] '1' to say what would be done and do nothing, else ''
--
-- Returns
--   {outcome, entries}    entries is how many index entries were added or dropped; outcome is
--                         'absent'         there is no old copy
--                         'removed'        the new copy stands alone now
--                         'alone'          no whole new copy is there: left
--                         'fresher'        the old copy is the fresher one: left
--                         'unlike'         as fresh as each other, and the old one holds what the new one does not: left
--                         'ttl'            equal, but the new copy would stay for longer: left
--                         'conflict'       new has the higher rev and old the later time: left
--                         'foreign'        another's record, or nobody's, holds the old key: left
--                         'contradiction'  the new hash contradicts its key: left
--                         'wrong-type'     a key holds something else than a job's hash, or than an index: left
--   error                 Redis would not say what a key holds  -> as Redis' own
local heads = {}
for i = 1, 2 do
  local reply = redis.pcall('HMGET', KEYS[i], unpack(FIELDS))
  if reply.err then
    if string.find(reply.err, 'WRONGTYPE', 1, true) then
      return {'wrong-type', 0}
    end
    return reply
  end
  if unwieldy(KEYS[i]) then
    return {'wrong-type', 0}
  end
  heads[i] = reply
end
local old, new = heads[1], heads[2]
if (new[1] or '') == '' or (new[2] or '') == '' then
  new = nil
elseif new[1] ~= ARGV[2] or new[2] ~= ARGV[1] then
  return {'contradiction', 0}
end

local outcome = 'removed'
if redis.call('EXISTS', KEYS[1]) == 0 then
  outcome = 'absent'
elseif old[1] ~= ARGV[2] or old[2] ~= ARGV[1] then
  outcome = 'foreign'
elseif not new then
  outcome = 'alone'
elseif same_bytes(KEYS[1], KEYS[2]) then
  -- Of equal copies the sooner expiry holds, and it would go with the old one.
  outcome = sooner(KEYS[1], KEYS[2]) == 1 and 'ttl' or 'removed'
else
  local all_of_old, all_of_new = contents(KEYS[1]), contents(KEYS[2])
  if holds(all_of_new, all_of_old) then
    if holds(all_of_old, all_of_new) and sooner(KEYS[1], KEYS[2]) == 1 then
      outcome = 'ttl'
    end
  elseif undecided(old, new) then
    outcome = 'conflict'
  elseif holds(all_of_old, all_of_new) then
    outcome = 'unlike'
  elseif old_is_fresher(old, new) then
    outcome = 'fresher'
  else
    if changed_without_rev(old, new) or tied(old, new) then
      outcome = 'unlike'
    end
    for _, field in ipairs({'status', 'action_provider', 'action_name', 'params', 'enqueued_at'}) do
      if all_of_old[field] and not all_of_new[field] then
        outcome = 'unlike'
      end
    end
  end
end

if outcome == 'removed' and not is_index(KEYS[3]) then
  return {'wrong-type', 0} -- no copy goes while its entries cannot follow
end
if outcome ~= 'absent' and outcome ~= 'foreign' then
  ask_about(place_of(old[5], ARGV[3]), outcome ~= 'removed' and (old[4] or '') or nil)
end
if new then
  ask_about(place_of(new[5], ARGV[3]), new[4] or '')
end
local entries = mend_entries(KEYS[3], ARGV[4] ~= '')
if outcome == 'removed' and ARGV[4] == '' then
  redis.call('DEL', KEYS[1])
  keep_now(KEYS[4])
end
return {outcome, entries}
