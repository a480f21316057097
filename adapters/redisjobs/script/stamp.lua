-- Part of the scripts that stamp times: gives Redis' own time as the stored text YYYY-MM-DDTHH:MM:SS.ffffff+00:00,
-- so that servers whose clocks differ write one order. minute is a whole minute in seconds since 1970 and text what
-- it is written like, up to its last colon: where Redis' clock stands in that minute, the date need not be computed.
-- (a - a % b) / b is whole division, cheaper than a call.
local function stamp(minute, text)
  local now = redis.call('TIME')
  local seconds = tonumber(now[1])
  local past = seconds % 60
  if seconds - past ~= tonumber(minute) then
    local rest = seconds % 86400
    -- Days since 1970 to a civil date, counting years from March so that the leap day is a year's last.
    local z = (seconds - rest) / 86400 + 719468
    local doe = z % 146097
    local x = doe - (doe - doe % 1460) / 1460 + (doe - doe % 36524) / 36524 - (doe - doe % 146096) / 146096
    local yoe = (x - x % 365) / 365
    local doy = doe - (365 * yoe + (yoe - yoe % 4) / 4 - (yoe - yoe % 100) / 100)
    local mp = (5 * doy + 2 - (5 * doy + 2) % 153) / 153
    local day = doy - (153 * mp + 2 - (153 * mp + 2) % 5) / 5 + 1
    local month = mp < 10 and mp + 3 or mp - 9
    local year = yoe + (z - doe) / 146097 * 400 + (month <= 2 and 1 or 0)
    text = string.format('%04d-%02d-%02dT%02d:%02d:', year, month, day, (rest - rest % 3600) / 3600,
      (rest % 3600 - past) / 60)
  end
  return string.format('%s%02d.%06d+00:00', text, past, tonumber(now[2]))
end
