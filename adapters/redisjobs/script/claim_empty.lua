-- Marks the index complete where nothing is stored yet: every job to come enters it when it is made. What servers say of
-- themselves tells of no job.
--
-- KEYS[1] ai:index-state
-- KEYS[2] ai:index-sweep:old
-- KEYS[3] ai:index-sweep:entries
-- KEYS[4] ai:servers
-- KEYS[5] ai:phases-seen
-- KEYS[6] ai:fallback-hits
-- KEYS[7] ai:server:{id}            one for each server that may live, up to the last of KEYS
--
-- ARGV[1] what a complete index's state is
--
-- Returns
--   1    marked
--   0    left as it was: something is stored
if redis.call('DBSIZE') > redis.call('EXISTS', unpack(KEYS, 2)) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
