-- Says what is stored of one job, in one step, and writes nothing. Of a job whose copies are equal, or that one schema
-- alone holds, no body is sent.
--
-- KEYS[1] ai:jobs:{job_id}
-- KEYS[2] ai:job:{workspace_id}:{job_id}
-- KEYS[3] ai:index:{workspace_id}
--
-- ARGV[1] workspace_id
-- ARGV[2] job_id
-- ARGV[3] the bytes that order job_id
--
-- Returns
--   0       both schemas hold the job for this workspace, equal in fields and expiry, and its index entries are right
--   {time}  the same of copies that have no rev: the latest of their times in microseconds since 1970, 0 for none
--   {equal, old, old_ttl, new, new_ttl, missing, extra}   what is stored:
--           equal is 1 where both copies are the workspace's and hold the same fields, else 0;
--           old and new are 'none' for no key, 'wrong-type' for a key that holds no hash, 'many' for a job's hash with far more
--           fields than a job has, else fields and values by turns: all of them where both copies are the workspace's and differ, else
--           those of VERSIONED that are there;
--           each ttl is as PTTL gives it;
--           missing and extra are the index entries that should be there and are not, and the other way round
--   error   Redis would not say what a key holds           -> as Redis' own
local VERSIONED = 7 -- the first so many of FIELDS

local heads, held = {}, {}
for i = 1, 2 do
  local reply = redis.pcall('HMGET', KEYS[i], unpack(FIELDS, 1, VERSIONED))
  if reply.err and not string.find(reply.err, 'WRONGTYPE', 1, true) then
    return reply
  end
  heads[i] = reply
  if not reply.err then
    local own = reply[1] == ARGV[2] and reply[2] == ARGV[1]
    if own then
      ask_about(place_of(reply[5], ARGV[3]), reply[4])
    end
    if own and unwieldy(KEYS[i]) then
      heads[i] = {many = true}
    else
      held[i] = own
    end
  end
end

local missing, extra = wrong_entries(KEYS[3])

local old_ttl, new_ttl = redis.call('PTTL', KEYS[1]), redis.call('PTTL', KEYS[2])
local equal, whole = 0, false
if held[1] and held[2] then
  equal, whole = 1, not same_bytes(KEYS[1], KEYS[2])
  if whole then
    local of_old, of_new = contents(KEYS[1]), contents(KEYS[2])
    if holds(of_old, of_new) and holds(of_new, of_old) then
      whole = false
    else
      equal = 0
    end
  end
  -- Two readings of one clock may be a millisecond apart.
  local together = old_ttl == new_ttl or old_ttl >= 0 and new_ttl >= 0 and math.abs(old_ttl - new_ttl) <= 1
  if equal == 1 and together and #missing + #extra == 0 then
    if revision(heads[1][3]) == 0 then
      local time = latest(instant(heads[1][5]), instant(heads[1][6]), instant(heads[1][7]))
      return {time}
    end
    return 0
  end
end

-- said gives what is told of a copy.
local function said(i)
  local key, head, out = i == 1 and KEYS[1] or KEYS[2], heads[i], {}
  if head.err then
    out = 'wrong-type'
  elseif head.many then
    out = 'many'
  elseif whole then
    out = redis.call('HGETALL', key)
  else
    for n = 1, VERSIONED do
      if head[n] then
        out[#out + 1] = FIELDS[n]
        out[#out + 1] = head[n]
      end
    end
    if #out == 0 and redis.call('EXISTS', key) == 0 then
      out = 'none'
    end
  end
  heads[i] = out
end
said(1)
said(2)
return {equal, heads[1], old_ttl, heads[2], new_ttl, missing, extra}
