-- Marks the index complete where nothing is stored yet: every job to come enters it when it is made.
--
-- KEYS[1] ai:index-state
--
-- ARGV[1] what a complete index's state is
--
-- Returns
--   1    marked
--   0    left as it was: something is stored
if redis.call('DBSIZE') > 0 then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
