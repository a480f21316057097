-- Part of the scripts that stamp times: gives a time of Redis' own clock, texts of whole seconds since 1970 and of
-- microseconds in six digits, as the stored text YYYY-MM-DDTHH:MM:SS.ffffff+00:00. known is a second and text what it is
-- written like: in that second nothing need be computed, and texts are all that is handled.
local function stamp(second, micros, known, text)
  if second ~= known then
    -- (a - a % b) / b is whole division. Years are counted from March, so that the leap day is a year's last.
    local seconds = tonumber(second)
    local rest = seconds % 86400
    local z = (seconds - rest) / 86400 + 719468
    local doe = z % 146097
    local x = doe - (doe - doe % 1460) / 1460 + (doe - doe % 36524) / 36524 - (doe - doe % 146096) / 146096
    local yoe = (x - x % 365) / 365
    local doy = doe - (365 * yoe + (yoe - yoe % 4) / 4 - (yoe - yoe % 100) / 100)
    local mp = (5 * doy + 2 - (5 * doy + 2) % 153) / 153
    local day = doy - (153 * mp + 2 - (153 * mp + 2) % 5) / 5 + 1
    local month = mp < 10 and mp + 3 or mp - 9
    local year = yoe + (z - doe) / 146097 * 400 + (month <= 2 and 1 or 0)
    text = string.format('%04d-%02d-%02dT%02d:%02d:%02d', year, month, day, (rest - rest % 3600) / 3600,
      (rest % 3600 - rest % 60) / 60, rest % 60)
  end
  return text .. '.' .. micros .. '+00:00'
end
