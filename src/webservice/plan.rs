//! What a command is about: the backend and the web service, from the command line, else service.template, else
//! service.manifest, else the site's defaults.

use std::ffi::OsString;

use super::nearest::nearest;
use super::options::Options;
use super::service::{BUILDSERVICE, Service};
use super::template::Template;
use crate::tenant::{Manifest, SafeWord, shorten};
use crate::web_type::{Arguments, BackendName, SiteConfig, WebType};

/// The backend, and the reason for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChosenBackend {
    pub name: BackendName,
    /// Whether nothing named it.
    pub is_default: bool,
}

/// Why the request is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// A file names an unknown backend.
    #[error("{file}: unknown backend {name:?}, expected \"gridengine\" or \"kubernetes\"")]
    Backend {
        /// The file.
        file: &'static str,
        /// The backend.
        name: String,
    },
    /// The web service is elsewhere.
    #[error(
        "the backend is {wanted}, but service.manifest says that your web service is on {known}; stop it there first with \
         `webservice --backend={known} stop`, or, if it does not run, remove service.manifest"
    )]
    OtherBackend {
        /// The backend that was asked for.
        wanted: BackendName,
        /// The backend of the manifest.
        known: BackendName,
    },
    /// An option of Kubernetes.
    #[error("{0} is for kubernetes only; leave it away, or add --backend=kubernetes")]
    KubernetesOnly(&'static str),
    /// No type, and no default.
    #[error("no type of web service is given, and {0} has no default; `webservice --types` lists them")]
    NoType(BackendName),
    /// The site does not know the type.
    #[error("unknown type {name:?}{suggestion}; expected one of:{listed}")]
    UnknownType {
        /// The type.
        name: String,
        /// `, did you mean "lighttpd"?`
        suggestion: String,
        /// One line for each type.
        listed: String,
    },
    /// The type is not for this backend.
    #[error("type {name:?} does not run on {backend}; expected one of:{listed}")]
    NotThere {
        /// The type.
        name: String,
        /// The backend.
        backend: BackendName,
        /// One line for each type.
        listed: String,
    },
    /// The release cannot be asked for.
    #[error("invalid release {0:?}, expected letters a-z, digits, . _ + and -, e.g. \"bookworm\"")]
    Release(String),
    /// EXTRA begins with a type.
    #[error("TYPE stands before the action: `webservice {0} start`")]
    TypeBehindAction(String),
    /// EXTRA is not text.
    #[error("argument {0:?} is not UTF-8, which service.manifest cannot keep; put it into a file of yours")]
    NotUtf8(OsString),
    /// A file has an argument that cannot be one.
    #[error(
        "argument {0:?} has a NUL byte, which no command line can have; correct service.template or service.manifest"
    )]
    Nul(String),
}

/// The backend of a command.
///
/// # Errors
/// A file names an unknown one, or the web service is on another.
pub fn choose_backend(
    options: &Options,
    template: &Template,
    manifest: &Manifest,
    site: &SiteConfig,
) -> Result<ChosenBackend, PlanError> {
    let parse = |file: &'static str, name: &Option<String>| -> Result<Option<BackendName>, PlanError> {
        let parsed =
            name.as_ref().map(|name| name.parse().map_err(|_| PlanError::Backend { file, name: shorten(name) }));
        parsed.transpose()
    };
    // Old manifests name none, for the grid was the only one.
    let implied = manifest.web.as_ref().map(|_| BackendName::GridEngine);
    let known = parse("service.manifest", &manifest.backend)?.or(implied);
    let wanted = options.backend.map_or_else(|| parse("service.template", &template.backend), |name| Ok(Some(name)))?;
    match (wanted, known) {
        (Some(wanted), Some(known)) if wanted != known => Err(PlanError::OtherBackend { wanted, known }),
        _ => Ok(ChosenBackend {
            name: wanted.or(known).unwrap_or(site.default_backend),
            is_default: wanted.or(known).is_none(),
        }),
    }
}

/// Refuses options that the backend does not have.
///
/// # Errors
/// [`PlanError::KubernetesOnly`].
pub fn check_options(options: &Options, backend: BackendName) -> Result<(), PlanError> {
    if backend == BackendName::Kubernetes {
        return Ok(());
    }
    for (option, is_given) in [
        ("--mem", options.memory.is_some()),
        ("--cpu", options.cpu.is_some()),
        ("--replicas", options.replicas.is_some()),
        ("--buildservice-image", options.buildservice_image.is_some()),
    ] {
        if is_given {
            return Err(PlanError::KubernetesOnly(option));
        }
    }
    Ok(())
}

/// The web service of a command.
///
/// # Errors
/// There is no valid type for the backend, or a value is invalid.
pub fn plan_service(
    options: &Options,
    (options_web, extra): (Option<&str>, &[OsString]),
    template: &Template,
    manifest: &Manifest,
    site: &SiteConfig,
    backend: BackendName,
) -> Result<Service, PlanError> {
    let pick = |option: &Option<String>, template: &Option<String>, manifest: &Option<String>| {
        option.clone().or_else(|| template.clone()).or_else(|| manifest.clone())
    };
    let is_kubernetes = backend == BackendName::Kubernetes;
    let given = options_web.map(str::to_owned).or_else(|| template.web.clone()).or_else(|| manifest.web.clone());
    // An image of the tool's own goes with its type only.
    let image = options.buildservice_image.clone().or_else(|| match &given {
        Some(given) if given != BUILDSERVICE => None,
        _ => pick(&None, &template.buildservice_image, &manifest.buildservice_image),
    });
    let image = image.filter(|_| is_kubernetes);
    let web = match (given, &image) {
        (Some(given), _) => given,
        (None, Some(_)) => BUILDSERVICE.to_owned(),
        (None, None) if is_kubernetes => {
            site.kubernetes.default_type.clone().ok_or(PlanError::NoType(BackendName::Kubernetes))?
        }
        (None, None) => site.grid.default_type.clone(),
    };
    let web = if is_kubernetes { web } else { grid_type(&web, site)?.name.clone() };
    let takes_none = site.web_type(&web).is_some_and(|found| found.arguments == Arguments::None);
    if let Some(first) = extra.first().and_then(|word| word.to_str())
        && options_web.is_none()
        && takes_none
        && site.web_type(first).is_some()
    {
        return Err(PlanError::TypeBehindAction(first.to_owned()));
    }
    let extra: Vec<String> = {
        let words =
            extra.iter().map(|word| word.to_str().map(str::to_owned).ok_or_else(|| PlanError::NotUtf8(word.clone())));
        words.collect::<Result<_, _>>()?
    };
    let is_of = |name: &Option<String>| name.as_ref().is_none_or(|name| *name == web || is_called(site, &web, name));
    let extra = match (&template.extra, extra.is_empty()) {
        (_, false) => extra,
        // Arguments belong to their type.
        (Some(extra), true) if is_of(&template.web) => extra.clone(),
        // Old versions ignored arguments of types that take none, and kept them.
        _ if is_of(&manifest.web) && !takes_none => manifest.extra.clone(),
        _ => Vec::new(),
    };
    if let Some(word) = extra.iter().find(|word| word.contains('\0')) {
        return Err(PlanError::Nul(shorten(word)));
    }
    let mut release = pick(&options.release, &template.release, &manifest.release);
    if !is_kubernetes {
        release = release.or_else(|| site.grid.release.clone());
        if let Some(name) = release.as_ref().filter(|name| SafeWord::try_new(name).is_none()) {
            return Err(PlanError::Release(shorten(name)));
        }
    }
    let for_kubernetes = |text: Option<String>| text.filter(|_| is_kubernetes);
    Ok(Service {
        web,
        release: release.filter(|_| !is_kubernetes),
        cpu: for_kubernetes(pick(&options.cpu, &template.cpu, &manifest.cpu)),
        memory: for_kubernetes(pick(&options.memory, &template.mem, &manifest.memory)),
        replicas: options.replicas.or(template.replicas).or(manifest.replicas).filter(|_| is_kubernetes),
        extra,
        buildservice_image: image,
    })
}

/// The site's type for the grid.
fn grid_type<'a>(name: &str, site: &'a SiteConfig) -> Result<&'a WebType, PlanError> {
    let backend = BackendName::GridEngine;
    match site.web_type(name) {
        // Its name becomes the job's.
        Some(found) if found.runs_on(backend) && SafeWord::try_new(&found.name).is_some() => Ok(found),
        Some(found) => {
            Err(PlanError::NotThere { name: found.name.clone(), backend, listed: list(site, Some(backend)) })
        }
        None => Err(unknown_type(name, site, backend)),
    }
}

fn unknown_type(name: &str, site: &SiteConfig, backend: BackendName) -> PlanError {
    let names = site.types_on(backend).flat_map(WebType::names);
    let suggestion = nearest(name, names).map(|name| format!(", did you mean {name:?}?")).unwrap_or_default();
    PlanError::UnknownType { name: shorten(name), suggestion, listed: list(site, Some(backend)) }
}

fn is_called(site: &SiteConfig, web: &str, name: &str) -> bool {
    site.web_type(name).is_some_and(|found| found.name == web)
}

/// One line for each type, of one backend or of both.
pub fn list(site: &SiteConfig, backend: Option<BackendName>) -> String {
    let types: Vec<_> = site.types().filter(|found| backend.is_none_or(|backend| found.runs_on(backend))).collect();
    let width = types.iter().map(|found| found.name.len()).max().unwrap_or_default();
    types.iter().map(|found| format!("\n    {:width$}  {}", found.name, found.description)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    struct Case<'a> {
        args: &'a str,
        template: &'a str,
        manifest: &'a str,
        site: &'a str,
    }

    fn planned(case: &Case<'_>) -> Result<(BackendName, bool, Service), String> {
        let args = std::iter::once("webservice").chain(case.args.split_whitespace());
        let mut options = Options::try_parse_from(args).map_err(|error| error.to_string())?;
        let words = options.words().map_err(|error| error.to_string())?;
        let template = Template::parse(case.template)?;
        let manifest = Manifest::parse(case.manifest)?;
        let site = SiteConfig::parse(case.site)?;
        let text = |error: PlanError| error.to_string();
        let backend = choose_backend(&options, &template, &manifest, &site).map_err(text)?;
        check_options(&options, backend.name).map_err(text)?;
        let words = (words.web.as_deref(), &*words.extra);
        let service = plan_service(&options, words, &template, &manifest, &site, backend.name).map_err(text)?;
        Ok((backend.name, backend.is_default, service))
    }

    #[test]
    fn command_line_precedes_template_manifest_and_site() {
        let grid = "default_backend: gridengine\n";
        for (args, template, manifest, site, want) in [
            ("start", "", "", grid, "gridengine! lighttpd -"),
            ("start", "", "", "", "error: no type of web service is given"),
            ("nodejs start", "", "", grid, "gridengine! nodejs -"),
            ("js start", "", "", grid, "gridengine! nodejs -"),
            ("start", "type: nodejs", "web: generic\nweb::extra_args: [x]", grid, "gridengine nodejs -"),
            ("start", "", "web: generic\nweb::extra_args: [x]\nrelease: a", grid, "gridengine generic a x"),
            ("start", "", "web: lighttpd\nweb::extra_args: [x]", grid, "gridengine lighttpd -"),
            ("start", "release: b", "web: generic\nrelease: a", grid, "gridengine generic b"),
            ("--release c start", "release: b", "web: generic\nrelease: a", grid, "gridengine generic c"),
            ("start", "", "", "default_backend: gridengine\ngridengine: {release: d}", "gridengine! lighttpd d"),
            ("generic start -- y -z", "extra_args: [x]", "", grid, "gridengine! generic - y -z"),
            (
                "generic start",
                "{extra_args: [x], type: generic}",
                "web: generic\nweb::extra_args: [z]",
                grid,
                "gridengine generic - x",
            ),
            ("generic start", "{extra_args: [x], type: nodejs}", "", grid, "gridengine! generic -"),
            ("python start", "{extra_args: [x], type: uwsgi-python}", "", grid, "gridengine! uwsgi-python - x"),
            ("start", "backend: gridengine", "", "", "gridengine lighttpd -"),
            ("--backend gridengine start", "backend: kubernetes", "", "", "gridengine lighttpd -"),
            ("start", "", "web: lighttpd", "", "gridengine lighttpd -"),
            ("start", "", "backend: gridengine", "", "gridengine lighttpd -"),
            ("start", "", "web: php7.4\nbackend: kubernetes", "", "kubernetes php7.4 -"),
            ("--backend=kubernetes php8 start", "release: x", "", "", "kubernetes php8 -"),
            ("--backend=kubernetes start", "", "", "kubernetes: {default_type: generic}", "kubernetes generic -"),
            ("--backend=kubernetes --buildservice-image i start", "", "", "", "kubernetes buildservice -"),
            (
                "--backend=kubernetes start",
                "",
                "web: lighttpd",
                "",
                "error: the backend is kubernetes, but service.manifest",
            ),
            (
                "start",
                "backend: kubernetes",
                "web: lighttpd\nbackend: gridengine",
                "",
                "error: the backend is kubernetes, but",
            ),
            ("start", "backend: grid", "", "", "error: service.template: unknown backend \"grid\""),
            ("start", "", "backend: grid", "", "error: service.manifest: unknown backend \"grid\""),
            ("start nodejs", "", "", grid, "error: TYPE stands before the action: `webservice nodejs start`"),
            ("start", r#"{type: generic, extra_args: ["a\0b"]}"#, "", grid, "error: argument \"a\\0b\" has a NUL byte"),
            ("start python x.py", "type: generic", "", grid, "gridengine! generic - python x.py"),
            ("--mem 1Gi start", "", "", grid, "error: --mem is for kubernetes only"),
            ("--cpu 1 start", "", "", grid, "error: --cpu is for kubernetes only"),
            ("--replicas 1 start", "", "", grid, "error: --replicas is for kubernetes only"),
            ("start", "mem: 1Gi", "", grid, "gridengine! lighttpd -"),
            (
                "lightttpd start",
                "",
                "",
                grid,
                "error: unknown type \"lightttpd\", did you mean \"lighttpd\"?; expected one of:\n    generic",
            ),
            ("start", "", "web: '-x y'", grid, "error: unknown type \"-x y\""),
            ("--release a,b=c start", "", "", grid, "error: invalid release \"a,b=c\""),
            ("start", "", "web: lighttpd\nrelease: '-l x'", grid, "error: invalid release \"-l x\""),
        ] {
            let got = match planned(&Case { args, template, manifest, site }) {
                Ok((backend, is_default, service)) => {
                    let mark = if is_default { "!" } else { "" };
                    let release = service.release.unwrap_or_else(|| "-".into());
                    let words = [vec![format!("{backend}{mark}"), service.web, release], service.extra].concat();
                    words.join(" ")
                }
                Err(error) => format!("error: {error}"),
            };
            let is_as_wanted = if want.starts_with("error") { got.starts_with(want) } else { got == want };
            assert!(is_as_wanted, "{args} | {template} | {manifest} | {site}: {got}");
        }
    }

    #[test]
    fn resources_are_for_kubernetes() {
        let case = Case {
            args: "--backend=kubernetes -m 2Gi php start",
            template: "cpu: 0.50\nmem: 1Gi",
            manifest: "web: php\nbackend: kubernetes\nreplicas: 3\nmemory: 4Gi\ncpu: 9",
            site: "",
        };
        let service = planned(&case).unwrap().2;
        let text = |text: &str| Some(text.to_owned());
        assert_eq!((service.memory, service.cpu, service.replicas), (text("2Gi"), text("0.50"), Some(3)));
    }
}
