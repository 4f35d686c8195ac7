-- Counts the requests of one caller over all replicas: takes permits and gives back unused ones.
--
-- KEYS[1]  a hash: a count for each slot of time, the newest and oldest slot, their total, and when it was begun
-- ARGV     limit; length of a slot in microseconds; how many slots before this one count;
--          permits needed; permits wanted beyond those; then what is given back, as begun, slot, permits
-- Returns  permits granted, of those needed first; begun; slot; permits left to all;
--          microseconds until the oldest permits that count end
local key = KEYS[1]
local limit, slot_us, slots = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local needed, wanted = tonumber(ARGV[4]), tonumber(ARGV[5])

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local slot = math.floor(now / slot_us)
local known = redis.call('HMGET', key, 'newest', 'oldest', 'total', 'begun')
local newest, oldest = tonumber(known[1]), tonumber(known[2])
local total, begun = tonumber(known[3]), tonumber(known[4])
local has_changed = false

-- The clock was set back by more than a window: nothing would end for as long.
if total and newest > slot + slots then
  redis.call('DEL', key)
  total = nil
end
if not total then
  newest, oldest, total, begun = slot, slot, 0, now
end
slot = math.max(slot, newest)

for i = 6, #ARGV, 3 do
  -- What was granted before the counts were lost is not in them.
  if tonumber(ARGV[i]) == begun then
    local count = tonumber(redis.call('HGET', key, ARGV[i + 1]) or 0)
    local back = math.min(count, tonumber(ARGV[i + 2]))
    if back > 0 then
      redis.call('HINCRBY', key, ARGV[i + 1], -back)
      total = total - back
      has_changed = true
    end
  end
end

while total > 0 and oldest <= slot do
  local count = tonumber(redis.call('HGET', key, oldest) or 0)
  if count > 0 and oldest >= slot - slots then
    break
  end
  redis.call('HDEL', key, oldest)
  total = total - count
  oldest = oldest + 1
  has_changed = true
end
if total <= 0 then
  total, oldest = 0, slot
end

local room = math.max(0, limit - total)
local granted = math.min(room, needed)
-- The nearer the limit, the fewer are kept by somebody who may not need them.
granted = granted + math.min(wanted, math.floor((room - granted) / 16))
if granted > 0 then
  redis.call('HINCRBY', key, slot, granted)
  total = total + granted
  has_changed = true
end
if has_changed then
  redis.call('HSET', key, 'newest', slot, 'oldest', oldest, 'total', total, 'begun', begun)
  redis.call('PEXPIRE', key, math.ceil((slots + 2) * slot_us / 1000))
end

local ends = 0
if total > 0 then
  ends = (oldest + slots + 1) * slot_us - now
end
return {granted, begun, slot, math.max(0, limit - total), ends}
