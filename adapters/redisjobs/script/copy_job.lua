-- Makes both schemas hold one whole copy of a job where at least the one to copy to has to: a missing copy is made from
-- the other, of two that differ the fresher whole one takes the other's place, and its expiry with it. At equal content
-- the sooner expiry wins. The job's index entries follow in the same step. What cannot be decided is left as it is, and so
-- is what is not the workspace's.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:index:{workspace_id}
-- KEYS[4] ai:queue:pending
-- KEYS[5] ai:writer-without-rev
--
-- ARGV[1] workspace_id
-- ARGV[2] job_id
-- ARGV[3] the bytes that order job_id
-- ARGV[4] 'new' or 'old': the schema in which a missing copy is made
-- ARGV[5] '1' to say what would be done and do nothing, else ''
--
-- Returns
--   {outcome, entries}    entries is how many index entries were added or dropped; outcome is
--                         'identical'      both copies are equal, in expiry too
--                         'single'         one schema holds the job, and the other need not
--                         'made'           the missing copy was made, in old with a queue entry where the job is pending
--                         'repaired'       the fresher copy took the other's place, old's with the same entry if none waits
--                         'ttl'            equal copies expire together now
--                         'conflict'       new has the higher rev and old the later time, or nothing tells which is the
--                                          fresher, or the fresher copy lacks what every job is made with and the other
--                                          has: left
--                         'foreign'        another's record holds the old key: new stands alone
--                         'contradiction'  the new hash contradicts its key: left
--                         'wrong-type'     a key holds something else than a job's hash, or than the queue where an entry is
--                                          due: left
--                         'absent'         neither schema holds the job for this workspace
--   error                 Redis would not say what a key holds  -> as Redis' own
local dry = ARGV[5] ~= ''

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
local foreign = false
if old[1] ~= ARGV[2] or old[2] ~= ARGV[1] then
  foreign = (old[1] or '') ~= '' or (old[2] or '') ~= ''
  old = nil
end

local outcome, from = 'absent', 0 -- from is the copy to take, 1 for old and 2 for new, 0 for none
if old and new then
  outcome = 'identical'
  local old_has_all, new_has_all = true, true
  local all_of_old, all_of_new
  if not same_bytes(KEYS[1], KEYS[2]) then
    all_of_old, all_of_new = contents(KEYS[1]), contents(KEYS[2])
    old_has_all, new_has_all = holds(all_of_old, all_of_new), holds(all_of_new, all_of_old)
  end
  if old_has_all and new_has_all then
    from = sooner(KEYS[1], KEYS[2])
    if from > 0 then
      outcome = 'ttl'
    end
  elseif undecided(old, new) then
    outcome = 'conflict'
  else
    -- A copy that has all of the other and more is the whole one: no writer takes a field away and leaves the rest.
    outcome, from = 'repaired', 2
    if old_has_all or not new_has_all and (changed_without_rev(old, new) or old_is_fresher(old, new)) then
      from = 1
    elseif not new_has_all and tied(old, new) then
      outcome, from = 'conflict', 0
    end
    local fresher, other = all_of_old, all_of_new
    if from ~= 1 then
      fresher, other = all_of_new, all_of_old
    end
    for _, field in ipairs({'status', 'action_provider', 'action_name', 'params', 'enqueued_at'}) do
      if other[field] and not fresher[field] then
        outcome, from = 'conflict', 0
      end
    end
  end
elseif old then
  outcome = 'single'
  if ARGV[4] == 'new' then
    outcome, from = 'made', 1
  end
elseif new then
  outcome = foreign and 'foreign' or 'single'
  if ARGV[4] == 'old' and not foreign then
    outcome, from = 'made', 2
  end
end

-- Workers that know only the old schema take bare ids alone. One may wait already where they had the job before. Once the
-- copies are equal nothing shows any more that it may be missing, so that it is looked for in both directions.
local due = from == 2 and new[4] == 'pending'
if due then
  local kind = redis.call('TYPE', KEYS[4]).ok
  if kind ~= 'list' and kind ~= 'none' then
    return {'wrong-type', 0}
  end
  due = outcome == 'made' or outcome == 'repaired' and not redis.call('LPOS', KEYS[4], ARGV[2], 'MAXLEN', '100000')
end

for i = 1, 2 do
  local copy = heads[i]
  if i == 1 and old or i == 2 and new then
    -- Of a copy that is to be replaced no entry stays.
    ask_about(place_of(copy[5], ARGV[3]), (from == 0 or from == i) and (copy[4] or '') or nil)
  end
end
local entries = mend_entries(KEYS[3], dry)
if dry or from == 0 then
  return {outcome, entries}
end

local source, target = KEYS[1], KEYS[2]
if from == 2 then
  source, target = KEYS[2], KEYS[1]
  if due then
    redis.call('RPUSH', KEYS[4], ARGV[2])
  end
end
if from == 1 and (outcome == 'repaired' and revision(old[3]) == revision(new[3]) or
  outcome == 'made' and revision(old[3]) == 0) then -- Relay writes no job without rev
  keep_now(KEYS[5])
end
redis.call('COPY', source, target, 'REPLACE')
return {outcome, entries}
