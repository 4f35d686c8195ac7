-- Replaces one dialogue, unless it has changed since it was read.
--
-- KEYS     a hash with version and head; a list of texts; of all dialogues when each is due, what each costs and
--          what they cost together; those of the customer
-- ARGV     name of the dialogue; its version as it was read, empty: not there; the next one; the head, empty: it
--          goes; what it costs; the most that all may cost; when it is due; how long everything is kept, in
--          milliseconds; 1: its texts go; a text that is added, empty: none
-- Returns  1: done, 0: it has changed, -1: there is no room
local name, version, next_version, head = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local cost, costs_max, due, kept = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], ARGV[8]
local texts_go, text = ARGV[9] == '1', ARGV[10]

if (redis.call('HGET', KEYS[1], 'version') or '') ~= version then
  return 0
end
local before = tonumber(redis.call('HGET', KEYS[4], name) or 0)
local all = tonumber(redis.call('GET', KEYS[5]) or 0)
if cost > before and all - before + cost > costs_max then
  return -1
end
redis.call('INCRBY', KEYS[5], cost - before)
if texts_go then
  redis.call('DEL', KEYS[2])
end
if head == '' then
  redis.call('DEL', KEYS[1], KEYS[2])
  redis.call('ZREM', KEYS[3], name)
  redis.call('HDEL', KEYS[4], name)
  redis.call('SREM', KEYS[6], name)
  return 1
end
redis.call('HSET', KEYS[1], 'version', next_version, 'head', head)
if text ~= '' then
  redis.call('RPUSH', KEYS[2], text)
end
redis.call('ZADD', KEYS[3], due, name)
redis.call('HSET', KEYS[4], name, cost)
redis.call('SADD', KEYS[6], name)
for _, key in ipairs(KEYS) do
  redis.call('PEXPIRE', key, kept)
end
return 1
