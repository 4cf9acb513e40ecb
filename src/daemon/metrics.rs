//! Metrics that all daemons share, in the two text formats of Prometheus.

use std::fmt;
use std::fs;
use std::hash::Hash;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, prometheus_text, text};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::clock;

/// Defines an enum of label values: each variant is named like its value, and `ALL` lists them in order.
macro_rules! label_values {
    ($(#[$of_enum:meta])* $vis:vis enum $name:ident { $($(#[$of_variant:meta])* $variant:ident,)+ }) => {
        $(#[$of_enum])*
        #[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, ::prometheus_client::encoding::EncodeLabelValue)]
        #[allow(non_camel_case_types, reason = "the names are the values of the label")]
        $vis enum $name {
            $($(#[$of_variant])* $variant,)+
        }

        impl $name {
            /// All values, in order.
            $vis const ALL: &'static [Self] = &[$(Self::$variant),+];
        }
    };
}
pub(crate) use label_values;

/// Output format of [`encode`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header prefers: text, unless it lists OpenMetrics with at least the same weight.
    pub fn preferred_by(accept: &str) -> Self {
        let weight_of = |wanted: &str| {
            let ranges = accept.split(',').filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let kind = parts.next()?;
                let weight =
                    parts.find_map(|part| part.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse::<f64>().ok());
                kind.eq_ignore_ascii_case(wanted).then_some(weight?)
            });
            ranges.fold(0.0, f64::max)
        };
        let open_metrics = weight_of("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= weight_of("text/plain") { Self::OpenMetrics } else { Self::Text }
    }

    /// The format's `Content-Type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => prometheus_text::CONTENT_TYPE,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Encodes all metrics.
pub fn encode(registry: &Registry, format: Format) -> Result<String, fmt::Error> {
    let mut written = String::new();
    match format {
        Format::Text => prometheus_text::encode(&mut written, registry)?,
        Format::OpenMetrics => text::encode(&mut written, registry)?,
    }
    Ok(written)
}

/// A registry with the process metrics and `<daemon>_build_info`. Daemons register their own metrics in
/// `registry.sub_registry_with_prefix(daemon)`, without repeating the prefix in the names.
pub fn new_registry(daemon: &str) -> Registry {
    let mut registry = Registry::default();
    let version = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
    registry.register(format!("{daemon}_build"), "The version that runs", version);
    let start_time = clock::unix_time().as_secs_f64();
    registry.register_collector(Box::new(Process { start_time }));
    registry
}

/// Exports a counter or gauge with these labels from the start, at 0.
pub fn start_at_zero<L, M, C>(family: &Family<L, M, C>, labels: impl IntoIterator<Item = L>)
where
    L: Clone + Hash + Eq,
    C: MetricConstructor<M>,
{
    for labels in labels {
        drop(family.get_or_create(&labels));
    }
}

/// The standard process metrics of Prometheus clients.
#[derive(Debug)]
struct Process {
    /// Seconds since 1970.
    start_time: f64,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = ConstCounter::new(cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9);
        let help = "User and system CPU time spent";
        cpu.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), cpu.metric_type())?)?;
        let mut gauge = |name, help, unit: Option<&Unit>, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        let help = "When the process was started, in seconds since 1970";
        gauge("process_start_time", help, Some(&Unit::Seconds), Some(self.start_time))?;
        gauge("process_resident_memory", "Memory in use", Some(&Unit::Bytes), resident_bytes())?;
        gauge("process_open_fds", "Open file descriptors", None, open_files())?;
        let most = getrlimit(Resource::Nofile).current;
        gauge("process_max_fds", "Most file descriptors that may be open", None, most.map(|most| most as f64))
    }
}

fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(resident.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? * 1024.0)
}

fn open_files() -> Option<f64> {
    // Without the descriptor that lists the directory.
    Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_header_selects_the_format() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, want) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/html, */*;q=0.8", Format::Text),
            ("text/plain;version=0.0.4", Format::Text),
            ("application/openmetrics-text; version=1.0.0", Format::OpenMetrics),
            ("Application/OpenMetrics-Text", Format::OpenMetrics),
            ("application/openmetrics-text;q=0", Format::Text),
            ("application/openmetrics-text;q=x", Format::Text),
            ("text/plain;q=0.5, application/openmetrics-text;q=0.3", Format::Text),
            (prometheus, Format::OpenMetrics),
        ] {
            assert_eq!(Format::preferred_by(accept), want, "{accept:?}");
        }
    }

    #[test]
    fn both_formats_have_the_same_samples() {
        let registry = new_registry("a");
        let text = encode(&registry, Format::Text).unwrap();
        let open_metrics = encode(&registry, Format::OpenMetrics).unwrap();
        assert!(text.contains("# TYPE process_cpu_seconds_total counter\n") && !text.contains("# EOF"), "{text}");
        assert!(open_metrics.contains("# TYPE process_cpu_seconds counter\n"), "{open_metrics}");
        assert!(open_metrics.ends_with("\n# EOF\n"), "{open_metrics}");
        let names = |text: &str| -> Vec<String> {
            let samples = text.lines().filter(|line| !line.starts_with('#'));
            samples.filter_map(|line| Some(line.split_once(' ')?.0.to_owned())).collect()
        };
        assert_eq!(names(&text), names(&open_metrics));
        let version = format!("a_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
        for name in [
            &*version,
            "process_cpu_seconds_total",
            "process_start_time_seconds",
            "process_resident_memory_bytes",
            "process_open_fds",
            "process_max_fds",
        ] {
            assert!(names(&text).iter().any(|known| known == name), "{name}: {text}");
        }
    }

    #[test]
    fn known_labels_exist_from_the_start() {
        label_values! {
            enum Outcome {
                ok,
                failed,
            }
        }
        #[derive(Clone, Debug, Hash, PartialEq, Eq, prometheus_client::encoding::EncodeLabelSet)]
        struct Labels {
            outcome: Outcome,
        }
        let (mut registry, family) =
            (Registry::default(), Family::<Labels, prometheus_client::metrics::counter::Counter>::default());
        registry.register("things", "Things", family.clone());
        start_at_zero(&family, Outcome::ALL.iter().map(|&outcome| Labels { outcome }));
        let text = encode(&registry, Format::Text).unwrap();
        for outcome in ["ok", "failed"] {
            assert!(text.contains(&format!("things_total{{outcome=\"{outcome}\"}} 0\n")), "{text}");
        }
    }
}
