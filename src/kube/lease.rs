//! Which of several replicas leads.

use std::str::FromStr;

/// Whether this one leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// Somebody else leads, or nobody is known to.
    Standby,
    /// We lead, and may write until then; renewed again and again.
    Leading {
        /// Not after.
        until: tokio::time::Instant,
    },
}

/// `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl FromStr for LeaseName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').ok_or("expected NAMESPACE/NAME")?;
        Ok(Self { namespace: namespace.into(), name: name.into() })
    }
}

/// TEMP
#[derive(Clone, Copy, Debug)]
pub struct Timing {}
impl Default for Timing {
    fn default() -> Self {
        Self {}
    }
}
/// TEMP
pub async fn take_part(
    _client: kube::Client,
    _name: LeaseName,
    _identity: String,
    _timing: Timing,
    leadership: tokio::sync::watch::Sender<Leadership>,
    mut stop: tokio::sync::watch::Receiver<bool>,
) {
    let _ = leadership.send(Leadership::Standby);
    let _ = stop.wait_for(|stop| *stop).await;
}
