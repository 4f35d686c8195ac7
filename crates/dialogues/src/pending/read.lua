-- One dialogue as it is: its version and head, the time of Redis in microseconds, and its texts where they are wanted.
--
-- KEYS  a hash with version and head, a list of texts
-- ARGV  1: with texts
local found = redis.call('HMGET', KEYS[1], 'version', 'head')
local time = redis.call('TIME')
local texts = {}
if found[1] and ARGV[1] == '1' then
  texts = redis.call('LRANGE', KEYS[2], 0, -1)
end
return {found[1] or '', found[2] or '', time[1] * 1000000 + time[2], texts}
