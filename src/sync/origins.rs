//! Answers questions of workers: who registered a tool's routes? The table does not store origins; operators rarely ask.

use redis::cmd;
use serde_json::{Map, Value};

use super::scan::{Reconciler, ScanError};
use crate::redis_client::{Connection, Reply};
use crate::registry::origin_key;
use crate::route::{Kind, RouteKey};
use crate::table::ANSWER_BYTES;

impl Reconciler<'_> {
    /// Answers all open questions.
    pub(super) fn answer_questions(&mut self, connection: &mut Connection<'_>) -> Result<(), ScanError> {
        let questions = self.writer.table().questions();
        for (ticket, name) in questions.open() {
            let answer = self.origins(connection, &name)?;
            questions.answer(ticket, answer.unwrap_or_default().as_bytes());
        }
        Ok(())
    }

    /// The origins of a tool's routes as JSON, by pattern; `None` if they are unknown or too long.
    fn origins(&mut self, connection: &mut Connection<'_>, name: &[u8]) -> Result<Option<String>, ScanError> {
        let Ok(key) = RouteKey::try_new(Kind::Tool, name) else { return Ok(None) };
        let Some(record) = self.writer.record(key.as_bytes()) else { return Ok(None) };
        let patterns: Vec<Vec<u8>> = record.routes().map(|route| route.pattern.to_vec()).collect();
        if patterns.is_empty() {
            return Ok(None);
        }
        let Some(patterns) = self.short_origins(connection, name, patterns)? else { return Ok(None) };
        if patterns.is_empty() {
            return Ok(Some("{}".into()));
        }
        connection.send(&cmd("HMGET").arg(origin_key(name)).arg(&patterns).get_packed_command())?;
        let origins = connection.reply(|reply| {
            let Reply::Array(values) = reply else { return None };
            let mut origins = Map::new();
            for (pattern, value) in patterns.iter().zip(&values) {
                if let Reply::Text(text) = value
                    && let Ok(value @ Value::Object(_)) = serde_json::from_slice(text)
                {
                    origins.insert(String::from_utf8_lossy(pattern).into_owned(), value);
                }
            }
            Some(Value::Object(origins).to_string())
        })?;
        Ok(origins.filter(|text| text.len() <= ANSWER_BYTES))
    }

    /// The patterns whose origins are short enough for an answer: a value of megabytes would delay the following of routes, and
    /// above a limit end the connection. `None` without the right to read the key, or with a key of another type.
    fn short_origins(
        &mut self,
        connection: &mut Connection<'_>,
        name: &[u8],
        mut patterns: Vec<Vec<u8>>,
    ) -> Result<Option<Vec<Vec<u8>>>, ScanError> {
        let key = origin_key(name);
        let mut commands = Vec::new();
        for pattern in &patterns {
            cmd("HSTRLEN").arg(&key).arg(pattern).write_packed_command(&mut commands);
        }
        connection.send(&commands)?;
        let mut lengths = Vec::with_capacity(patterns.len());
        for _ in &patterns {
            lengths.push(connection.reply(|reply| if let Reply::Integer(bytes) = reply { Some(bytes) } else { None })?);
        }
        let lengths: Option<Vec<i64>> = lengths.into_iter().collect();
        Ok(lengths.map(|lengths| {
            let mut lengths = lengths.into_iter();
            patterns.retain(|_| lengths.next().is_some_and(|bytes| (1..=ANSWER_BYTES as i64).contains(&bytes)));
            patterns
        }))
    }
}
