//! Asking for one Lease: each answer within a deadline, each write only in the place of what was read.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::timeout;

use super::LeaseName;
use crate::kube::error::shown;

/// Why it is not known who leads, or nobody can be told that we do.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// The API server's answer, or none.
    #[error("{} while {doing} the lease", shown(&**.error))]
    Kube { doing: Doing, error: Box<kube::Error> },
    /// It hangs.
    #[error("no answer within {within:?} while {doing} the lease")]
    Timeout { doing: Doing, within: Duration },
    /// We lead no more, for want of an answer.
    #[error("no answer before the end of what was led")]
    Over,
    /// Whatever is there would be overwritten.
    #[error("no resourceVersion in the lease")]
    NoVersion,
}

/// What for, in a word.
type Doing = &'static str;

impl LeaseError {
    fn is_status(&self, codes: &[u16]) -> bool {
        let Self::Kube { error, .. } = self else { return false };
        matches!(&**error, kube::Error::Api(status) if codes.contains(&status.code))
    }
}

/// A client that is made anew after each failure: with it come a new connection, and what the token's file says now.
pub struct LeaseClient<F> {
    client_of: F,
    name: LeaseName,
    deadline: Duration,
    api: Option<Api<Lease>>,
}

impl<F: Fn() -> kube::Result<Client>> LeaseClient<F> {
    /// `deadline` is for one answer.
    pub fn new(client_of: F, name: LeaseName, deadline: Duration) -> Self {
        Self { client_of, name, deadline, api: None }
    }

    /// What there is; `None` when there is no Lease.
    pub async fn read(&mut self) -> Result<Option<Lease>, LeaseError> {
        let (api, name) = (self.api()?, self.name.name.clone());
        self.answer("reading", api.get_opt(&name)).await
    }

    /// What there is now; `None` when there was a Lease already.
    pub async fn create(&mut self, lease: &Lease) -> Result<Option<Lease>, LeaseError> {
        let api = self.api()?;
        match self.answer("creating", api.create(&PostParams::default(), lease)).await {
            Err(error) if error.is_status(&[409]) => Ok(None),
            created => created.map(Some),
        }
    }

    /// What there is now; `None` when it was not this version any more.
    pub async fn replace(&mut self, lease: &Lease) -> Result<Option<Lease>, LeaseError> {
        if lease.metadata.resource_version.as_ref().is_none_or(String::is_empty) {
            return Err(LeaseError::NoVersion);
        }
        let (api, name) = (self.api()?, self.name.name.clone());
        match self.answer("replacing", api.replace(&name, &PostParams::default(), lease)).await {
            Err(error) if error.is_status(&[404, 409]) => Ok(None),
            replaced => replaced.map(Some),
        }
    }

    /// Something failed.
    pub fn forget(&mut self) {
        self.api = None;
    }

    fn api(&mut self) -> Result<Api<Lease>, LeaseError> {
        if let Some(api) = &self.api {
            return Ok(api.clone());
        }
        let failed = |error| LeaseError::Kube { doing: "making a client for", error: Box::new(error) };
        let api = Api::namespaced((self.client_of)().map_err(failed)?, &self.name.namespace);
        Ok(self.api.insert(api).clone())
    }

    async fn answer<T>(
        &mut self,
        doing: Doing,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, LeaseError> {
        match timeout(self.deadline, request).await {
            Ok(answer) => answer.map_err(|error| LeaseError::Kube { doing, error: Box::new(error) }),
            Err(_) => Err(LeaseError::Timeout { doing, within: self.deadline }),
        }
    }
}
