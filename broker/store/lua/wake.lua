-- Put one token on a wake list unless one is there already.
-- KEYS[1] the list · ARGV[1] its lifetime, s · returns 1 when a token was put
if redis.call('LLEN', KEYS[1]) > 0 then
    return 0
end
redis.call('RPUSH', KEYS[1], '1')
redis.call('EXPIRE', KEYS[1], ARGV[1])
return 1
