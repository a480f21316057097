-- Marks the index complete, where the server is still the process in which the pass went through all stored jobs: what
-- another one holds may lack the last of its writes.
--
-- KEYS[1] ai:index-state
--
-- ARGV[1] what a complete index's state is
-- ARGV[2] the process' run_id, '' where the server did not tell
--
-- Returns
--   1    marked
--   0    left as it was: this is another process
if ARGV[2] ~= '' and not string.find(redis.call('INFO', 'server'), 'run_id:' .. ARGV[2], 1, true) then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1])
return 1
