//! Which of several kube2proxy writes: one lock, in the Redis that it protects, with a fencing number.
//!
//! The value of `k8s_lock` is `<number> <identity>`. Each script that writes compares all of it, so that a late write of a former
//! holder changes nothing. Numbers only grow, also over a loss of the key. A holder that gives the lock up leaves `<number> -`
//! behind for a moment: another may take it at once, while one that finds nothing at all lets the former holder go first.

use std::sync::LazyLock;

use redis::{FromRedisValue, ParsingError, Script, Value};

use super::script::{Call, call};

/// Whoever's number and identity are its value may write; others may when it has expired.
pub const LOCK_KEY: &str = "k8s_lock";
/// The last number that was given out.
pub const LOCK_NUMBER_KEY: &str = "k8s_lock_number";
/// The lock of an earlier version, which asks nothing else: while it is there nobody else writes.
pub const OLD_LOCK_KEY: &str = "k8s_writer";

/// For how long a lock that was given up is seen to be, in milliseconds.
const OFFER_MS: u64 = 10_000;

/// What Redis says about the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockReply {
    /// It still is the caller's, and was prolonged.
    Kept,
    /// It was nobody's, and now is the caller's, with this value.
    Taken(String),
    /// It is another's, with this value.
    Held(String),
    /// This identity writes, of an earlier version, which has precedence.
    HeldByOld(String),
    /// It is nobody's, and its last holder has given it up.
    Offered,
    /// It is nobody's: it has expired, or Redis was emptied.
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
            other => Err(format!("{other:?} is no state of a lock").into()),
        }
    }
}

/// KEYS: lock, number, old lock. ARGV: identity, value that the caller has or nothing, "take" or not, time to live in ms.
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

/// Prolongs the lock if its value is `held`. Takes it for `identity` if it is nobody's and `take` says so.
pub fn beat_lock(identity: &str, held: Option<&str>, take: bool, time_to_live_ms: u64) -> Call<LockReply> {
    let (take, time_to_live) = (if take { "take" } else { "" }, time_to_live_ms.to_string());
    let args = [identity, held.unwrap_or_default(), take, &time_to_live];
    call(&BEAT, &[LOCK_KEY, LOCK_NUMBER_KEY, OLD_LOCK_KEY], &args)
}

/// KEYS: lock. ARGV: value, time for which the offer is seen, in ms.
static RELEASE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "
        if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
        redis.call('SET', KEYS[1], ARGV[1]:match('^%d+') .. ' -', 'PX', ARGV[2])
        return 1",
    )
});

/// Gives the lock up if its value is `held`. Replies whether it was.
pub fn release_lock(held: &str) -> Call<bool> {
    call(&RELEASE, &[LOCK_KEY], &[held, &OFFER_MS.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
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
