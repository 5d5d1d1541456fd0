-- Takes one token from each bucket, or from none if any is empty (GCRA: a bucket stores the time at which it is full
-- again). KEYS: the buckets. ARGV: microseconds until one token is refilled; number of tokens in a full bucket. Returns
-- the microseconds to wait for each bucket. All are zero if one token was taken from each bucket. Every number is a
-- whole number of microseconds below 2^53, where doubles are exact.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval = tonumber(ARGV[1])
local horizon = now + interval * tonumber(ARGV[2])

local full_at, waits, refused = {}, {}, false
for i, key in ipairs(KEYS) do
  local stored = tonumber(redis.call('GET', key)) or now
  -- A stored time is beyond the horizon only if Redis' clock was set back or the quota was lowered. Treat the bucket as
  -- empty.
  full_at[i] = math.max(now, math.min(stored, horizon)) + interval
  waits[i] = math.max(0, full_at[i] - horizon)
  refused = refused or waits[i] > 0
end

if not refused then
  for i, key in ipairs(KEYS) do
    -- A missing entry counts as a full bucket, so the entry expires when the bucket is full.
    local ttl_ms = math.ceil((full_at[i] - now) / 1000)
    redis.call('SET', key, string.format('%.0f', full_at[i]), 'PX', ttl_ms)
  end
end
return waits
