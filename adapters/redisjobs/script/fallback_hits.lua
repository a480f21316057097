-- Counts reads that served an old copy though new is read.
--
-- KEYS[1] ai:fallback-hits
--
-- ARGV[1] how many
--
-- Returns
--   1    always
local clock = redis.call('TIME')
redis.call('HINCRBY', KEYS[1], 'count', ARGV[1])
redis.call('HSET', KEYS[1], 'last', clock[1] .. string.sub('00000', #clock[2]) .. clock[2])
return 1
