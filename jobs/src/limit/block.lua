-- Takes a block of tokens from one bucket of `limit.lua`: as many as the bucket has, up to a number. KEYS: the bucket.
-- ARGV: microseconds until one token is refilled; number of tokens in a full bucket; number of tokens wanted. Returns
-- the number of tokens taken, and the microseconds to wait if it is zero.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval = tonumber(ARGV[1])
local horizon = now + interval * tonumber(ARGV[2])

local stored = tonumber(redis.call('GET', KEYS[1])) or now
local full_at = math.max(now, math.min(stored, horizon))
local taken = math.min(tonumber(ARGV[3]), math.floor((horizon - full_at) / interval))
if taken == 0 then
  return {0, full_at + interval - horizon}
end

full_at = full_at + taken * interval
redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
return {taken, 0}
