-- Count the attempts that have a slot, for several providers.
-- KEYS[…] their slots, sorted sets by end (unix ms) · returns a count for each
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local counts = {}
for i, key in ipairs(KEYS) do
    counts[i] = redis.call('ZCOUNT', key, '(' .. now_ms, '+inf')
end
return counts
