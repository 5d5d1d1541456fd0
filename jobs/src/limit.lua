-- Takes one from each bucket, or from none (GCRA: a bucket holds the instant at which it is full again).
-- KEYS: the buckets. ARGV: microseconds until one more is granted; how many a full bucket grants.
-- Answers the microseconds to wait, one for each bucket; all are zero when one was taken from each.
-- Every number is a whole count of microseconds below 2^53, where doubles are exact.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local interval = tonumber(ARGV[1])
local horizon = now + interval * tonumber(ARGV[2])

local full_at, waits, refused = {}, {}, false
for i, key in ipairs(KEYS) do
  local stored = tonumber(redis.call('GET', key)) or now
  -- Beyond the horizon only if Redis' clock was set back or the quota lowered: no more than empty.
  full_at[i] = math.max(now, math.min(stored, horizon)) + interval
  waits[i] = math.max(0, full_at[i] - horizon)
  refused = refused or waits[i] > 0
end

if not refused then
  for i, key in ipairs(KEYS) do
    -- Once full, a bucket says no more than a missing one.
    local ttl_ms = math.ceil((full_at[i] - now) / 1000)
    redis.call('SET', key, string.format('%.0f', full_at[i]), 'PX', ttl_ms)
  end
end
return waits
