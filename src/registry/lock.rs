//! The lock that elects the writing kube2proxy: in the Redis that it protects, with a fencing number.
//!
//! The value of `k8s_lock` is `<number> <identity>`. Each writing script compares the whole value, so that a late write of a former
//! holder changes nothing. Numbers only grow, even if the key is lost. A holder that releases the lock leaves `<number> -`
//! for a moment: a standby may take it at once. A standby that finds no key first lets the former holder try.

use std::sync::LazyLock;

use redis::{FromRedisValue, ParsingError, Script, Value};

use super::script::{Call, call};

/// The lock: its value is the number and identity of the holder.
pub const LOCK_KEY: &str = "k8s_lock";
/// The last fencing number.
pub const LOCK_NUMBER_KEY: &str = "k8s_lock_number";
/// The lock of an earlier version, which does not check `k8s_lock`: while this key exists no newer kube2proxy writes.
pub const OLD_LOCK_KEY: &str = "k8s_writer";

/// How long a released lock stays visible, in milliseconds.
const OFFER_MS: u64 = 10_000;

/// The state of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockReply {
    /// The caller holds it, and has renewed it.
    Kept,
    /// It was free; the caller now holds it, with this value.
    Taken(String),
    /// Another process holds it, with this value.
    Held(String),
    /// A process of an earlier version, with this identity, holds the old lock, which has precedence.
    HeldByOld(String),
    /// It is free: its last holder has released it.
    Offered,
    /// It is free: it has expired, or Redis was flushed.
    Absent,
}

impl FromRedisValue for LockReply {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let (word, value) = <(String, Vec<u8>)>::from_redis_value(value)?;
        let value = String::from_utf8_lossy(&value).into_owned();
        match &*word {
            "kept" => Ok(Self::Kept),
            "taken" => Ok(Self::Taken(value)),
            "held" => Ok(Self::Held(value)),
            "old" => Ok(Self::HeldByOld(value)),
            "offered" => Ok(Self::Offered),
            "absent" => Ok(Self::Absent),
            other => Err(format!("unexpected state {other:?} of the lock").into()),
        }
    }
}

/// KEYS: lock, number, old lock. ARGV: identity, the caller's value or nothing, "take" or not, time to live in ms.
static BEAT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        local old = redis.pcall('GET', KEYS[3])
        local value = redis.pcall('GET', KEYS[1])
        if old then
            if value == ARGV[2] then redis.call('DEL', KEYS[1]) end
            return {'old', type(old) == 'string' and old or 'a key of another type'}
        end
        if type(value) == 'table' then return {'held', 'a key of another type'} end
        if value and value == ARGV[2] then
            redis.call('PEXPIRE', KEYS[1], ARGV[4])
            return {'kept', value}
        end
        local is_offered = value and value:match('^%d+ %-$')
        if value and not is_offered then return {'held', value} end
        if ARGV[3] ~= 'take' then return {is_offered and 'offered' or 'absent', ''} end
        local time = redis.call('TIME')
        local number = tonumber(time[1]) * 1000000 + tonumber(time[2])
        local last = tonumber(redis.pcall('GET', KEYS[2]) or 0)
        if last and last >= number then number = last + 1 end
        number = string.format('%.0f', number)
        redis.call('SET', KEYS[2], number)
        redis.call('SET', KEYS[1], number .. ' ' .. ARGV[1], 'PX', ARGV[4])
        return {'taken', number .. ' ' .. ARGV[1]}",
    )
});

/// Renews the lock if its value is `held`. Takes it for `identity` if it is free and `take` is set.
pub fn beat_lock(identity: &str, held: Option<&str>, take: bool, time_to_live_ms: u64) -> Call<LockReply> {
    let (take, time_to_live) = (if take { "take" } else { "" }, time_to_live_ms.to_string());
    let args = [identity, held.unwrap_or_default(), take, &time_to_live];
    call(&BEAT, &[LOCK_KEY, LOCK_NUMBER_KEY, OLD_LOCK_KEY], &args)
}

/// KEYS: lock. ARGV: value, time for which the released lock stays visible, in ms.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[1]:match('^%d+') .. ' -', 'PX', ARGV[2])
        return 1",
    )
});

/// Releases the lock if its value is `held`. Replies whether it was.
pub fn release_lock(held: &str) -> Call<bool> {
    call(&RELEASE, &[LOCK_KEY], &[held, &OFFER_MS.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_parsed() {
        let read = |word: &str, value: &str| {
            let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
            LockReply::from_redis_value(Value::Array(vec![bulk(word), bulk(value)]))
        };
        assert_eq!(read("kept", "1 a"), Ok(LockReply::Kept));
        assert_eq!(read("taken", "1 a"), Ok(LockReply::Taken("1 a".into())));
        assert_eq!(read("held", "1 a"), Ok(LockReply::Held("1 a".into())));
        assert_eq!(read("held", "1 b"), Ok(LockReply::Held("1 b".into())));
        assert_eq!(read("old", "b"), Ok(LockReply::HeldByOld("b".into())));
        assert_eq!(read("offered", ""), Ok(LockReply::Offered));
        assert_eq!(read("absent", ""), Ok(LockReply::Absent));
        assert!(read("other", "").is_err());
    }
}
