-- Part of the scripts that compare two copies of a job: the same rules as job.Fresher and job.ParseTime, which say
-- why. A test holds the two sides together.

-- micros gives a stored time in microseconds since 1970, nil for what is no time.
local function micros(text)
  if not text or #text > 35 then return nil end
  local y, mo, d, h, mi, s, rest = string.match(text, '^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)(.*)$')
  if not y then return nil end
  local fraction, zone = string.match(rest, '^%.(%d+)(.*)$')
  fraction, zone = fraction or '', zone or rest
  y, mo, d, h, mi, s = tonumber(y), tonumber(mo), tonumber(d), tonumber(h), tonumber(mi), tonumber(s)
  local leap = y % 4 == 0 and (y % 100 ~= 0 or y % 400 == 0)
  local month = ({31, leap and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31})[mo]
  if not month or d < 1 or d > month or h > 23 or mi > 59 or s > 59 or #fraction > 9 then return nil end
  local offset = 0
  if zone ~= 'Z' then
    local sign, oh, om = string.match(zone, '^([+-])(%d%d):(%d%d)$')
    if not sign or tonumber(oh) > 23 or tonumber(om) > 59 then return nil end
    offset = (tonumber(oh) * 60 + tonumber(om)) * 60 * (sign == '-' and -1 or 1)
  end
  if mo <= 2 then y, mo = y - 1, mo + 12 end
  local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400) +
    math.floor((153 * (mo - 3) + 2) / 5) + d - 719469
  local seconds = days * 86400 + h * 3600 + mi * 60 + s - offset
  return seconds * 1000000 + tonumber(string.sub(fraction .. '000000', 1, 6))
end

local FIELDS = {'job_id', 'workspace_id', 'rev', 'status', 'enqueued_at', 'started_at', 'finished_at'}

-- revision reads a rev; what is no plain number up to 15 digits is 0.
local function revision(text)
  return text and #text <= 15 and string.match(text, '^%d+$') and tonumber(text) or 0
end

-- old_is_fresher tells whether old's copy is to be served and written from, given both copies' FIELDS.
local function old_is_fresher(old, new)
  local ro, rn = revision(old[3]), revision(new[3])
  if ro ~= rn then return ro > rn end
  local to, tn = {}, {}
  for i = 5, 7 do
    to[i], tn[i] = math.max(0, micros(old[i]) or 0), math.max(0, micros(new[i]) or 0)
  end
  if ro > 0 then
    return old[4] ~= new[4] or to[5] ~= tn[5] or to[6] ~= tn[6] or to[7] ~= tn[7]
  end
  local lo, ln = math.max(to[5], to[6], to[7]), math.max(tn[5], tn[6], tn[7])
  if lo ~= ln then return lo > ln end
  local rank = {pending = 1, running = 2, completed = 3, failed = 3}
  return (rank[old[4]] or 0) > (rank[new[4]] or 0)
end
