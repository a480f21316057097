-- Marks the index complete where nothing is stored yet: every job to come enters it when it is made. That servers take
-- turns to sweep it tells of no job.
--
-- KEYS[1] ai:index-state
-- KEYS[2] ai:index-sweep:old
-- KEYS[3] ai:index-sweep:entries
--
-- ARGV[1] what a complete index's state is
--
-- Returns
--   1    marked
--   0    left as it was: something is stored
if redis.call('DBSIZE') > redis.call('EXISTS', KEYS[2], KEYS[3]) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
