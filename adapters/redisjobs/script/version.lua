-- Part of the scripts that compare two copies of a job: the same rules as job.Fresher and job.ParseTime, which say
-- why. A test holds the two sides together.

local NO_TIME = '000000000000000000'

-- instant gives a stored time as eighteen digits that sort as time does: microseconds since 1970, NO_TIME for what is
-- no time and for any before. As a number they would be exact only up to the year 2255.
local function instant(text)
  if not text or #text > 35 then return NO_TIME end
  local y, mo, d, h, mi, s, rest = string.match(text, '^(%d%d%d%d)%-(%d%d)%-(%d%d)T(%d%d):(%d%d):(%d%d)(.*)$')
  if not y then return NO_TIME end
  local fraction, zone = string.match(rest, '^%.(%d+)(.*)$')
  fraction, zone = fraction or '', zone or rest
  y, mo, d, h, mi, s = tonumber(y), tonumber(mo), tonumber(d), tonumber(h), tonumber(mi), tonumber(s)
  local leap = y % 4 == 0 and (y % 100 ~= 0 or y % 400 == 0)
  local month = ({31, leap and 29 or 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31})[mo]
  if not month or d < 1 or d > month or h > 23 or mi > 59 or s > 59 or #fraction > 9 then return NO_TIME end
  local offset = 0
  if zone ~= 'Z' then
    local sign, oh, om = string.match(zone, '^([+-])(%d%d):(%d%d)$')
    if not sign or tonumber(oh) > 23 or tonumber(om) > 59 then return NO_TIME end
    offset = (tonumber(oh) * 60 + tonumber(om)) * 60 * (sign == '-' and -1 or 1)
  end
  if mo <= 2 then y, mo = y - 1, mo + 12 end
  local days = 365 * y + math.floor(y / 4) - math.floor(y / 100) + math.floor(y / 400) +
    math.floor((153 * (mo - 3) + 2) / 5) + d - 719469
  local seconds = days * 86400 + h * 3600 + mi * 60 + s - offset
  if seconds < 0 or seconds >= 253402300800 then return NO_TIME end -- the year 10000
  return string.format('%012d%s', seconds, string.sub(fraction .. '000000', 1, 6))
end

local FIELDS = {'job_id', 'workspace_id', 'rev', 'status', 'enqueued_at', 'started_at', 'finished_at', 'result', 'error'}

-- revision reads a rev; what is no plain number up to 15 digits is 0.
local function revision(text)
  return text and #text <= 15 and string.match(text, '^%d+$') and tonumber(text) or 0
end

local function latest(a, b, c)
  if b > a then a = b end
  if c > a then a = c end
  return a
end

-- old_is_fresher tells whether old's copy is to be served and written from, given both copies' FIELDS.
local function old_is_fresher(old, new)
  local ro, rn = revision(old[3]), revision(new[3])
  if ro ~= rn then return ro > rn end
  local same = old[4] == new[4] and old[5] == new[5] and old[6] == new[6] and old[7] == new[7]
  if ro > 0 then
    if (old[8] or '') ~= (new[8] or '') or (old[9] or '') ~= (new[9] or '') then return true end
    return not same and ((old[4] or '') ~= (new[4] or '') or instant(old[5]) ~= instant(new[5]) or
      instant(old[6]) ~= instant(new[6]) or instant(old[7]) ~= instant(new[7]))
  end
  if same then return false end
  local eo, so, fo = instant(old[5]), instant(old[6]), instant(old[7])
  local en, sn, fn = instant(new[5]), instant(new[6]), instant(new[7])
  local lo, ln = latest(eo, so, fo), latest(en, sn, fn)
  if lo ~= ln then return lo > ln end
  local rank = {pending = 1, running = 2, completed = 3, failed = 3}
  return (rank[old[4]] or 0) > (rank[new[4]] or 0)
end

-- undecided tells whether two copies contradict each other: new has the higher rev, old the later time. Somebody who does
-- not know rev changed the old copy after it had fallen behind.
local function undecided(old, new)
  if revision(new[3]) <= revision(old[3]) then return false end
  local eo, so, fo = instant(old[5]), instant(old[6]), instant(old[7])
  local en, sn, fn = instant(new[5]), instant(new[6]), instant(new[7])
  if old[4] == 'running' and new[4] == 'pending' and eo == en and fo == NO_TIME and sn == NO_TIME and fn == NO_TIME then
    return false
  end
  return latest(eo, so, fo) > latest(en, sn, fn)
end
