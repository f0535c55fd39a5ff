-- Remember something else of a provider, where nobody has changed it since it was read; a probe is over then.
-- KEYS[1] what is remembered · KEYS[2] the probe · ARGV[1] what was read, empty for nothing
-- ARGV[2] what is to be remembered · ARGV[3] its lifetime, ms · returns 1 when it was done
local known = redis.call('GET', KEYS[1]) or ''
if known ~= ARGV[1] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
redis.call('DEL', KEYS[2])
return 1
