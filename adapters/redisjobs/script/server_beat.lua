-- Says that a server lives, and that its phase had a live server just now.
--
-- KEYS[1] ai:server:{id}
-- KEYS[2] ai:servers
-- KEYS[3] ai:phases-seen
--
-- ARGV[1] id
-- ARGV[2] what the server says of itself
-- ARGV[3] milliseconds that it counts as live from now on
-- ARGV[4] the name of its phase
--
-- Returns
--   1    always
local clock = redis.call('TIME')
local now = clock[1] .. string.sub('00000', #clock[2]) .. clock[2] -- microseconds
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('ZADD', KEYS[2], clock[1], ARGV[1])
-- What was killed left its id behind.
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', clock[1] - 3600)
local last = redis.call('HGET', KEYS[3], ARGV[4] .. ':last')
if not last or tonumber(now) - tonumber(last) > tonumber(ARGV[3]) * 1000 then
  redis.call('HSET', KEYS[3], ARGV[4] .. ':since', now)
end
redis.call('HSET', KEYS[3], ARGV[4] .. ':last', now)
return 1
