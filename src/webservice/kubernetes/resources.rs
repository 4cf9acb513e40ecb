//! The memory and processor time of the container: limits, and the requests that follow from them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as ApiQuantity;

use crate::web_type::{ONE, Quantity, QuantityError};

/// The smallest limit of memory that a container starts with.
const MIN_MEMORY: &str = "4Mi";
/// Limits below these are requested in full.
const REQUESTED_IN_FULL_BELOW: (&str, &str) = ("256Mi", "250m");
/// Memory has whole bytes.
const BYTE: u128 = ONE;
/// Kubernetes refuses less processor time than a thousandth.
const MILLI: u128 = ONE / 1000;

/// Why resources are refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// The text is no quantity.
    #[error("invalid memory {text:?}: {error}; expected e.g. \"512Mi\" or \"2Gi\"")]
    Memory {
        /// The text.
        text: String,
        /// Why.
        error: QuantityError,
    },
    /// The text is no quantity.
    #[error("invalid cpu {text:?}: {error}; expected e.g. \"0.5\", \"250m\" or \"2\"")]
    Cpu {
        /// The text.
        text: String,
        /// Why.
        error: QuantityError,
    },
    /// Often a forgotten unit, or `m`, which means thousandths.
    #[error("memory {0:?} is less than {MIN_MEMORY}, in which nothing runs; expected e.g. \"512Mi\" or \"2Gi\"")]
    TooLittleMemory(String),
}

/// A limit and a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Share {
    limit: Quantity,
    request: Quantity,
}

/// What the container may use at most, and what is reserved for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resources {
    memory: Share,
    cpu: Share,
}

impl Resources {
    /// The site's or a type's defaults: half of the memory and a quarter of the processor time are requested.
    ///
    /// # Errors
    /// A text is no quantity.
    pub fn defaults(memory: &str, cpu: &str) -> Result<Self, ResourceError> {
        let (memory, cpu) = (parse_memory(memory)?, parse_cpu(cpu)?);
        Ok(Self {
            memory: Share { limit: memory, request: memory.divided_by(2, BYTE) },
            cpu: Share { limit: cpu, request: cpu.divided_by(4, MILLI) },
        })
    }

    /// With other limits of memory. `request` is half of it, or all of it below 256Mi, unless given.
    ///
    /// # Errors
    /// A text is no quantity.
    pub fn with_memory(mut self, limit: &str, request: Option<&str>) -> Result<Self, ResourceError> {
        let limit = parse_memory(limit)?;
        let is_small = limit < parse_memory(REQUESTED_IN_FULL_BELOW.0)?;
        let request = match request {
            Some(request) => parse_memory(request)?.min(limit),
            None if is_small => limit,
            None => limit.divided_by(2, BYTE),
        };
        self.memory = Share { limit, request };
        Ok(self)
    }

    /// With another limit of processor time. `request` is half of it, or all of it below 250m, unless given.
    ///
    /// # Errors
    /// A text is no quantity.
    pub fn with_cpu(mut self, limit: &str, request: Option<&str>) -> Result<Self, ResourceError> {
        let limit = parse_cpu(limit)?;
        let is_small = limit < parse_cpu(REQUESTED_IN_FULL_BELOW.1)?;
        let request = match request {
            Some(request) => parse_cpu(request)?.min(limit),
            None if is_small => limit,
            None => limit.divided_by(2, MILLI),
        };
        self.cpu = Share { limit, request };
        Ok(self)
    }

    /// As the API server takes them.
    pub fn to_requirements(self) -> ResourceRequirements {
        let map = |memory: Quantity, cpu: Quantity| {
            let pairs = [("memory", memory), ("cpu", cpu)];
            let pairs = pairs.map(|(name, quantity)| (name.to_owned(), ApiQuantity(quantity.to_string())));
            Some(BTreeMap::from(pairs))
        };
        ResourceRequirements {
            limits: map(self.memory.limit, self.cpu.limit),
            requests: map(self.memory.request, self.cpu.request),
            ..ResourceRequirements::default()
        }
    }
}

fn parse_memory(text: &str) -> Result<Quantity, ResourceError> {
    let refused = |error| ResourceError::Memory { text: text.to_owned(), error };
    let memory = Quantity::parse(text).map_err(refused)?;
    if memory < Quantity::parse(MIN_MEMORY).map_err(refused)? {
        return Err(ResourceError::TooLittleMemory(text.to_owned()));
    }
    Ok(memory.rounded_up_to(BYTE))
}

fn parse_cpu(text: &str) -> Result<Quantity, ResourceError> {
    let cpu = Quantity::parse(text).map_err(|error| ResourceError::Cpu { text: text.to_owned(), error })?;
    Ok(cpu.rounded_up_to(MILLI))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Resources {
        Resources::defaults("512Mi", "0.5").unwrap()
    }

    /// `memory limit/request cpu limit/request`.
    fn text(resources: Resources) -> String {
        let (memory, cpu) = (resources.memory, resources.cpu);
        format!("{}/{} {}/{}", memory.limit, memory.request, cpu.limit, cpu.request)
    }

    #[test]
    fn defaults_are_those_of_the_old_command() {
        assert_eq!(text(site()), "512Mi/256Mi 500m/125m");
        assert_eq!(text(site().with_memory("1Gi", Some("256Mi")).unwrap()), "1Gi/256Mi 500m/125m");
    }

    #[test]
    fn request_is_half_of_the_limit_or_all_of_a_small_one() {
        for (memory, want) in [
            ("1Gi", "1Gi/512Mi"),
            ("512Mi", "512Mi/256Mi"),
            ("257Mi", "257Mi/131584Ki"),
            ("256Mi", "256Mi/128Mi"),
            ("268435455", "268435455/268435455"),
            ("255Mi", "255Mi/255Mi"),
            ("64Mi", "64Mi/64Mi"),
            ("1G", "1G/500M"),
        ] {
            assert_eq!(text(site().with_memory(memory, None).unwrap()), format!("{want} 500m/125m"), "{memory}");
        }
        for (cpu, want) in [
            ("2", "2/1"),
            ("0.5", "500m/250m"),
            ("251m", "251m/126m"),
            ("250m", "250m/125m"),
            ("0.25", "250m/125m"),
            ("249m", "249m/249m"),
            ("0.2495", "250m/125m"),
            ("1m", "1m/1m"),
        ] {
            assert_eq!(text(site().with_cpu(cpu, None).unwrap()), format!("512Mi/256Mi {want}"), "{cpu}");
        }
    }

    #[test]
    fn errors_name_the_value_and_valid_ones() {
        for (memory, want) in [
            ("512", "memory \"512\" is less than 4Mi"),
            ("512m", "memory \"512m\" is less than 4Mi"),
            ("1 GB", "invalid memory \"1 GB\": not a number with a unit"),
            ("-1Gi", "invalid memory \"-1Gi\": not more than 0"),
            ("9Ei", "invalid memory \"9Ei\": too large"),
        ] {
            let error = site().with_memory(memory, None).unwrap_err().to_string();
            assert!(error.starts_with(want) && error.contains("expected e.g."), "{error}");
        }
        let error = site().with_cpu("0", None).unwrap_err().to_string();
        assert_eq!(error, "invalid cpu \"0\": not more than 0; expected e.g. \"0.5\", \"250m\" or \"2\"");
    }

    #[test]
    fn requirements_name_both_resources() {
        let value = serde_json::to_value(site().to_requirements()).unwrap();
        let want = serde_json::json!({
            "limits": {"memory": "512Mi", "cpu": "500m"}, "requests": {"memory": "256Mi", "cpu": "125m"},
        });
        assert_eq!(value, want);
    }
}
