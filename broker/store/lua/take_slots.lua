-- Put attempts into a provider's slots, each with its own end, unless it is full; what is there already stays.
-- KEYS[1] the slots, a sorted set by end (unix ms) · ARGV[1] how many there are, 0 for any number
-- ARGV[2] lifetime, ms · ARGV[3…] attempts · returns how many of them have a slot now
local now = redis.call('TIME')
local now_ms = now[1] * 1000 + math.floor(now[2] / 1000)
local limit, lifetime_ms = tonumber(ARGV[1]), tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now_ms)
local taken = 0
for i = 3, #ARGV do
    local has_room = limit == 0 or redis.call('ZCARD', KEYS[1]) < limit
    if has_room or redis.call('ZSCORE', KEYS[1], ARGV[i]) then
        redis.call('ZADD', KEYS[1], now_ms + lifetime_ms, ARGV[i])
        taken = taken + 1
    end
end
if taken > 0 and redis.call('PTTL', KEYS[1]) < lifetime_ms then
    redis.call('PEXPIRE', KEYS[1], lifetime_ms)
end
return taken
