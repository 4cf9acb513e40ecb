//! Replies to the scripts: any reply is an outcome or an error.

use redis::{FromRedisValue, Value, parse_redis_value};
use urlproxy::registry::{Applied, LockReply, Registration, Replaced, Withdrawal};

pub fn check(bytes: &[u8]) {
    // Words, one per line, as the scripts reply; then any reply at all.
    let bulk = |word: &[u8]| Value::BulkString(word.to_vec());
    let words = Value::Array(bytes.split(|&byte| byte == b'\n').map(bulk).collect());
    for value in [Some(words), Some(bulk(bytes)), parse_redis_value(bytes).ok()].into_iter().flatten() {
        let _ = Applied::from_redis_value(value.clone());
        let _ = LockReply::from_redis_value(value.clone());
        let _ = Replaced::from_redis_value(value.clone());
        if let Ok(Registration::AddressHeld(holder)) = Registration::from_redis_value(value.clone()) {
            assert!(matches!(&value, Value::Array(words) if words.len() == 2), "held by {holder:?}");
        }
        let _ = Withdrawal::from_redis_value(value);
    }
}
