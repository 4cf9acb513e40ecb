//! Reads the keys in Redis that proxies follow, as they are.

use std::collections::{BTreeMap, BTreeSet};

use redis::{RedisError, Value};

use crate::daemon::{Reading, Store, StoreError};
use crate::registry::{FOLLOWED_GLOB, RawRoutes, origin_key, prefix_of, split_key};
use crate::route::Kind;

/// Keys per page of a scan, a hint to Redis.
const SCAN_COUNT: usize = 1000;
/// Keys per pipeline.
const BATCH: usize = 500;
/// Fields or members of a key that are read at most. The module reads 256.
const MAX_FIELDS: u64 = 10_000;

/// The values of keys, by kind and unvalidated name.
pub type Entries = BTreeMap<(Kind, Vec<u8>), Entry>;

/// The value of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Fields and their values, sorted.
    Hash(BTreeMap<Vec<u8>, Vec<u8>>),
    /// Members, sorted.
    Set(BTreeSet<Vec<u8>>),
    /// Too many fields or members, so many.
    TooLarge(u64),
    /// Another type.
    WrongType,
}

impl Entry {
    /// The routes of a tool or domain; `None` for a value that has none.
    pub fn as_raw(&self) -> Option<RawRoutes<'_>> {
        match self {
            Self::Hash(fields) => Some(RawRoutes::Hash(fields.iter().map(|(f, v)| (&f[..], &v[..])).collect())),
            Self::Set(members) => Some(RawRoutes::Set(members.iter().map(|member| &member[..]).collect())),
            Self::TooLarge(_) | Self::WrongType => None,
        }
    }
}

/// Reads all keys that proxies follow. Keys that are written or removed during the call may be missing.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn read_all(store: &Store, mut read: impl FnMut(u64)) -> Result<Entries, StoreError> {
    let keys: Vec<Vec<u8>> = scan(store).await?.into_iter().collect();
    let mut entries = Entries::new();
    for batch in keys.chunks(BATCH) {
        for (key, entry) in batch.iter().zip(fetch(store, batch).await?) {
            if let (Some((kind, name)), Some(entry)) = (split_key(key), entry) {
                entries.insert((kind, name.to_vec()), entry);
            }
        }
        read(batch.len() as u64);
    }
    Ok(entries)
}

/// Reads the keys of these names; those that do not exist are missing.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn read_some(store: &Store, names: &[(Kind, Vec<u8>)]) -> Result<Entries, StoreError> {
    let mut entries = Entries::new();
    for batch in names.chunks(BATCH) {
        let keys: Vec<_> = batch.iter().map(|(kind, name)| [prefix_of(*kind).as_bytes(), name].concat()).collect();
        let found = batch.iter().zip(fetch(store, &keys).await?);
        entries.extend(found.filter_map(|(name, entry)| Some((name.clone(), entry?))));
    }
    Ok(entries)
}

/// The fields of `origin:<tool>` for each of the tools.
///
/// # Errors
/// Redis does not answer, or refuses.
pub async fn read_origins(store: &Store, tools: &[&[u8]]) -> Result<Vec<BTreeMap<Vec<u8>, Vec<u8>>>, StoreError> {
    let keys: Vec<_> = tools.iter().map(|tool| origin_key(tool)).collect();
    let fields = |entry| match entry {
        Some(Entry::Hash(fields)) => fields,
        _ => BTreeMap::new(),
    };
    let mut origins = Vec::new();
    for batch in keys.chunks(BATCH) {
        origins.extend(fetch(store, batch).await?.into_iter().map(fields));
    }
    Ok(origins)
}

async fn scan(store: &Store) -> Result<BTreeSet<Vec<u8>>, StoreError> {
    let mut keys = BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let mut command = redis::cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(FOLLOWED_GLOB).arg("COUNT").arg(SCAN_COUNT);
        let page: (u64, Vec<Vec<u8>>) = store.commit(&Reading::new(command)).await?;
        keys.extend(page.1.into_iter().filter(|key| split_key(key).is_some()));
        cursor = page.0;
        if cursor == 0 {
            return Ok(keys);
        }
    }
}

/// The values of keys; `None` for a key that does not exist.
async fn fetch(store: &Store, keys: &[Vec<u8>]) -> Result<Vec<Option<Entry>>, StoreError> {
    let mut sizes = redis::pipe();
    for key in keys {
        sizes.cmd("HLEN").arg(key).cmd("SCARD").arg(key);
    }
    sizes.ignore_errors();
    let sizes: Vec<Value> = store.commit(&Reading::new(sizes)).await?;
    let mut entries = Vec::with_capacity(keys.len());
    let mut values = redis::pipe();
    let mut asked = Vec::new();
    for (key, size) in keys.iter().zip(sizes.chunks(2)) {
        let found = match size {
            // A missing key is an empty hash and an empty set.
            [Value::Int(0), Value::Int(0)] => None,
            [Value::Int(fields), _] | [_, Value::Int(fields)] if *fields > MAX_FIELDS as i64 => {
                Some(Entry::TooLarge(fields.unsigned_abs()))
            }
            [Value::Int(_), _] => {
                values.cmd("HGETALL").arg(key);
                asked.push((entries.len(), true));
                None
            }
            [_, Value::Int(_)] => {
                values.cmd("SMEMBERS").arg(key);
                asked.push((entries.len(), false));
                None
            }
            errors => match errors.iter().find_map(other_error) {
                Some(error) => return Err(error.into()),
                None => Some(Entry::WrongType),
            },
        };
        entries.push(found);
    }
    if asked.is_empty() {
        return Ok(entries);
    }
    values.ignore_errors();
    let values: Vec<Value> = store.commit(&Reading::new(values)).await?;
    for ((index, is_hash), value) in asked.into_iter().zip(values) {
        let entry = if is_hash {
            redis::from_redis_value(value).ok().filter(|fields: &BTreeMap<_, _>| !fields.is_empty()).map(Entry::Hash)
        } else {
            redis::from_redis_value(value).ok().filter(|members: &BTreeSet<_>| !members.is_empty()).map(Entry::Set)
        };
        if let Some(slot) = entries.get_mut(index) {
            // Changed its type or vanished since its size was read.
            *slot = entry;
        }
    }
    Ok(entries)
}

/// An error reply that says nothing about the key's type, such as that of a missing right.
fn other_error(reply: &Value) -> Option<RedisError> {
    match reply {
        Value::ServerError(error) if error.code() != "WRONGTYPE" => Some(error.clone().into()),
        _ => None,
    }
}
