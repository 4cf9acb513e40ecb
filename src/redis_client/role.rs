//! A server's role: master, or a replica that may have incomplete data.

use super::resp::Reply;

use super::error::ServerError;

/// The relevant part of a `ROLE` reply.
///
/// <https://redis.io/docs/latest/commands/role/>
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    Master,
    /// A replica, with the state of its link to the master. Only `connected` implies complete data: in all other states the
    /// replica may have started empty or lost its link in the middle of loading a copy.
    Replica(String),
}

impl Role {
    /// Parses a reply; `None` for an unknown shape.
    pub fn of(reply: &Reply<'_>) -> Option<Self> {
        let Reply::Array(parts) = reply else { return None };
        match parts.as_slice() {
            [Reply::Text(b"master"), ..] => Some(Self::Master),
            [Reply::Text(b"slave" | b"replica"), _, _, Reply::Text(state), ..] => {
                Some(Self::Replica(ServerError::new(state).to_string()))
            }
            _ => None,
        }
    }

    /// The state of a replica's link, unless its data is complete.
    pub(super) fn broken_link(self) -> Option<String> {
        match self {
            Self::Replica(state) if state != "connected" => Some(state),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connected_replicas_are_complete() {
        let replica = |state| {
            let parts = [Reply::Text(b"slave"), Reply::Text(b"10.0.0.1"), Reply::Integer(6379), Reply::Text(state)];
            Role::of(&Reply::Array(parts.into()))
        };
        for state in ["handshake", "connect", "connecting", "sync", "unknown"] {
            assert_eq!(replica(state.as_bytes()).unwrap().broken_link().as_deref(), Some(state));
        }
        assert_eq!(replica(b"connected").unwrap().broken_link(), None);
        let master = Role::of(&Reply::Array(vec![Reply::Text(b"master"), Reply::Integer(1), Reply::Array(vec![])]));
        assert_eq!(master, Some(Role::Master));
        assert_eq!(Role::Master.broken_link(), None);
        for other in [Reply::Array(vec![]), Reply::Array(vec![Reply::Text(b"sentinel")]), Reply::Text(b"master")] {
            assert_eq!(Role::of(&other), None);
        }
    }
}
