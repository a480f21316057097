-- Takes, prolongs or gives up the turn to sweep the index.
--
-- KEYS[1] ai:index-sweep:{old|entries}
--
-- ARGV[1] the server that asks
-- ARGV[2] milliseconds that its turn lasts from now on, 0 to give it up
--
-- Returns
--   1    it is its turn
--   0    it is another's, or was given up
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
  return 0
end
if ARGV[2] == '0' then
  redis.call('DEL', KEYS[1])
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
