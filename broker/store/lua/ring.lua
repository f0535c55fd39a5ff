-- Do in one round trip what arq's enqueue_job does in three, and wake one waiting worker.
-- The score is one more than the last: arq takes nothing whose score is later than the worker's own clock, and whoever
-- rings may have another. It orders as arq's does, and lies in the past by every clock.
-- KEYS[1] arq's job key · KEYS[2] arq's result key · KEYS[3] the queue's sorted set · KEYS[4] the wake list
-- ARGV[1] arq's id of the job · ARGV[2] its payload · ARGV[3] its lifetime, ms
-- ARGV[4] lifetime of the wake list, s · returns 1 when the job was new, 0 when arq has it already
local is_new = redis.call('EXISTS', KEYS[1], KEYS[2]) == 0
if is_new then
    redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
    local last = redis.call('ZREVRANGE', KEYS[3], 0, 0, 'WITHSCORES')[2]
    redis.call('ZADD', KEYS[3], (last or 0) + 1, ARGV[1])
end
if redis.call('LLEN', KEYS[4]) == 0 then
    redis.call('RPUSH', KEYS[4], '1')
    redis.call('EXPIRE', KEYS[4], ARGV[4])
end
return is_new and 1 or 0
