"""What Redis does for the shared tier in one step each, as Lua scripts.

A value's header names the versions of its namespace and of its tags. A version is a random text under a key of its
own; where that key is gone, or holds another, all values that name it are void. So dropping a namespace or a tag is
one deletion, and a version that Redis evicted can only make values void, never bring dropped ones back.

A key's lease is a lock with an expiry. Whoever holds it computes, and what it stores counts only as long as the lease
does: deleting or setting the key breaks it.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

__all__ = [
    "ACQUIRE",
    "DELETE",
    "FOREIGN_VALUE",
    "FORGET",
    "HIT",
    "LEAD",
    "PUT",
    "READ",
    "RELEASE",
    "RENEW",
    "STORE",
    "Script",
]

# How the answers of READ and ACQUIRE begin; READ answers nil, and ACQUIRE WAIT, where there is nothing.
HIT: Final = 1
LEAD: Final = 2
FOREIGN_VALUE: Final = 3


class Script:
    """A Lua script and the hash that Redis knows it by.

    Args:
        source: the script.
    """

    __slots__ = ("digest", "source")

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = sha1(source.encode(), usedforsecurity=False).hexdigest()


_TEXT = """
local function text(key)
    local found = redis.pcall('GET', key)
    return type(found) == 'string' and found
end
"""

# KEYS: value, lease, version of the namespace. ARGV[1]: what the keys of tags' versions begin with.
_FIND = (
    _TEXT
    + r"""
local function find()
    local raw = redis.pcall('GET', KEYS[1])
    if raw == false then return false end
    if type(raw) ~= 'string' or #raw < 6 or string.sub(raw, 1, 4) ~= 'GSM\1' then return {3} end
    local size = string.byte(raw, 5) * 256 + string.byte(raw, 6)
    local read, head = pcall(cmsgpack.unpack, string.sub(raw, 7, 6 + size))
    if not read or type(head) ~= 'table' then return {3} end
    if head[1] ~= text(KEYS[3]) then return false end
    local answer = {1, raw, redis.call('PTTL', KEYS[1])}
    for place = 2, #head, 2 do
        if text(ARGV[1] .. head[place]) ~= head[place + 1] then return false end
        answer[#answer + 1] = head[place]
    end
    return answer
end
"""
)

# The version under a key, a fresh one where there is none; it lives longer than any value that names it.
_VERSION = """
local function version(key, fresh, ttl)
    local now = text(key)
    if not now then
        now = fresh
        redis.call('SET', key, now)
        if ttl > 0 then redis.call('PEXPIRE', key, ttl + 60000) end
    elseif ttl == 0 then
        redis.call('PERSIST', key)
    else
        local left = redis.call('PTTL', key)
        if left >= 0 and left < ttl + 60000 then redis.call('PEXPIRE', key, ttl + 60000) end
    end
    return now
end
local function header(fresh, ttl, first)
    local head = {version(KEYS[3], fresh, ttl)}
    for place = first, #ARGV do
        head[#head + 1] = ARGV[place]
        head[#head + 1] = version(ARGV[1] .. ARGV[place], fresh, ttl)
    end
    local packed = cmsgpack.pack(head)
    return 'GSM\\1' .. string.char(math.floor(#packed / 256), #packed % 256) .. packed
end
local function keep(value, ttl)
    if ttl > 0 then
        redis.call('SET', KEYS[1], value, 'PX', ttl)
    else
        redis.call('SET', KEYS[1], value)
    end
end
"""

# ARGV: tags' prefix.
READ: Final = Script(_FIND + "return find()")

# ARGV: tags' prefix, token, ms of the lease, fresh version, ms of the value, tags. A lease without an end is none of
# ours, for all of ours have one; one with this token was taken by this command, sent before on a broken connection.
ACQUIRE: Final = Script(
    _FIND
    + _VERSION
    + """
local found = find()
if found and found[1] == 1 then return found end
if not redis.call('SET', KEYS[2], ARGV[2], 'NX', 'PX', ARGV[3]) then
    if redis.call('PTTL', KEYS[2]) ~= -1 and text(KEYS[2]) ~= ARGV[2] then return {0} end
    redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
end
return {2, header(ARGV[4], tonumber(ARGV[5]), 6), found and 1 or 0}
"""
)

# ARGV: tags' prefix, token, header, value, ms of the value, channel, message, tags. Gives 1 where it was stored.
STORE: Final = Script(
    _TEXT
    + _VERSION
    + """
if text(KEYS[2]) ~= ARGV[2] then return 0 end
local ttl = tonumber(ARGV[5])
local function prolong(key)
    if ttl == 0 then
        redis.call('PERSIST', key)
    else
        local left = redis.call('PTTL', key)
        if left >= 0 and left < ttl + 60000 then redis.call('PEXPIRE', key, ttl + 60000) end
    end
end
prolong(KEYS[3])
for place = 8, #ARGV do prolong(ARGV[1] .. ARGV[place]) end
keep(ARGV[3] .. ARGV[4], ttl)
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[6], ARGV[7])
return 1
"""
)

# ARGV: tags' prefix, fresh version, ms of the value, value, channel, message, tags.
PUT: Final = Script(
    _TEXT
    + _VERSION
    + """
local ttl = tonumber(ARGV[3])
keep(header(ARGV[2], ttl, 7) .. ARGV[4], ttl)
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1
"""
)

# KEYS: lease. ARGV: token, ms. Gives 1 where the lease is still held.
RENEW: Final = Script(
    _TEXT
    + """
if text(KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
)

# KEYS: lease. ARGV: token, channel, message.
RELEASE: Final = Script(
    _TEXT
    + """
if text(KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
"""
)

# KEYS: value, lease. ARGV: channel, message.
DELETE: Final = Script(
    "redis.call('DEL', KEYS[1], KEYS[2])\nredis.call('PUBLISH', ARGV[1], ARGV[2])\nreturn 1"
)

# KEYS: the version of a namespace or of a tag. ARGV: channel, message.
FORGET: Final = Script("redis.call('DEL', KEYS[1])\nredis.call('PUBLISH', ARGV[1], ARGV[2])\nreturn 1")
