-- Part of the scripts that stamp times. stamp() gives Redis' own time as the stored text
-- YYYY-MM-DDTHH:MM:SS.ffffff+00:00, so that servers whose clocks differ write one order.
local function stamp()
  local now = redis.call('TIME')
  local seconds = tonumber(now[1])
  local days = math.floor(seconds / 86400)
  local rest = seconds - days * 86400
  -- Days since 1970 to a civil date, counting years from March so that the leap day is a year's last.
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local day = doy - math.floor((153 * mp + 2) / 5) + 1
  local month = mp < 10 and mp + 3 or mp - 9
  local year = yoe + era * 400 + (month <= 2 and 1 or 0)
  return string.format('%04d-%02d-%02dT%02d:%02d:%02d.%06d+00:00', year, month, day,
    math.floor(rest / 3600), math.floor(rest / 60) % 60, rest % 60, tonumber(now[2]))
end
