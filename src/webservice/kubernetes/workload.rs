//! What the container runs: the image, the command in it, and its resources.

use super::images::{Image, Images};
use super::resources::{ResourceError, Resources};
use crate::web_type::{BackendName, SiteConfig};
use crate::webservice::service::BUILDSERVICE;
use crate::webservice::{Service, Tool};

/// The port of the container.
pub const PORT: i32 = 8000;
/// The program in the types' images that starts the web server.
const RUNNER: &str = "webservice-runner";
/// The longest EXTRA, all words together. The API server takes 1.5 MiB for an object, the kernel 128 KiB for a word.
const MAX_EXTRA_BYTES: usize = 64 << 10;
/// The longest image name.
const MAX_IMAGE_LEN: usize = 512;

/// Why a web service cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum WorkloadError {
    /// There is no such type.
    #[error("unknown type {name:?}, expected one of: {known}")]
    UnknownType {
        /// The type.
        name: String,
        /// The types.
        known: String,
    },
    /// There is no such type, nor any other.
    #[error(
        "unknown type {0:?}: the site has no types with an image; ask the operators to list them in the ConfigMap or in the site configuration"
    )]
    NoTypes(String),
    /// `buildservice` is no type without an image.
    #[error("type \"buildservice\" needs an image; add --buildservice-image IMAGE")]
    NoImage,
    /// The site has no repository.
    #[error("this site has no images of tools: buildservice_repository is not set in the site configuration")]
    NoRepository,
    /// The image is of another project.
    #[error(
        "image {image:?} is not of this tool, expected e.g. \"{project}/{tool}:latest\", or with its repository: \"{repository}/PROJECT/NAME:TAG\""
    )]
    OtherProject {
        /// The image.
        image: String,
        /// The tool's project.
        project: String,
        /// The tool.
        tool: String,
        /// The site's repository.
        repository: String,
    },
    /// The image has characters that no image has.
    #[error("invalid image {0:?}, expected e.g. \"NAME:TAG\"")]
    Image(String),
    /// More replicas than the site allows.
    #[error("{replicas} replicas are not possible, expected 1 to {max}")]
    Replicas {
        /// The replicas.
        replicas: u32,
        /// The site's maximum.
        max: u32,
    },
    /// The arguments are too long.
    #[error("the arguments have {0} bytes, expected at most {MAX_EXTRA_BYTES}; put them into a file of the tool")]
    ExtraTooLong(usize),
    /// Invalid memory or cpu.
    #[error(transparent)]
    Resources(#[from] ResourceError),
}

/// A validated container.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The type, or `buildservice`.
    pub type_name: String,
    /// The image.
    pub image: String,
    /// The type that webservice-runner runs; `None` for a tool's own image, which starts by itself.
    pub runner_type: Option<String>,
    /// EXTRA: for webservice-runner, or for the image's own command.
    extra: Vec<String>,
    /// Limits and requests.
    pub resources: Resources,
    /// The number of Pods.
    pub replicas: i32,
    /// What the maintainer should know.
    pub warning: Option<String>,
}

impl Workload {
    /// Validates what is to run. `images` are the types of the ConfigMap, which the site configuration's add to.
    ///
    /// # Errors
    /// As [`WorkloadError`] says.
    pub fn resolve(service: &Service, tool: &Tool, site: &SiteConfig, images: &Images) -> Result<Self, WorkloadError> {
        check_extra(&service.extra)?;
        let max = site.kubernetes.max_replicas.max(1);
        let replicas = service.replicas.unwrap_or(1);
        let replicas = i32::try_from(replicas)
            .ok()
            .filter(|_| (1..=max).contains(&replicas))
            .ok_or(WorkloadError::Replicas { replicas, max })?;
        let defaults = Resources::defaults(&site.kubernetes.memory, &site.kubernetes.cpu)?;
        let kind = match &service.buildservice_image {
            Some(image) => Kind::of_tool(image, tool, site, defaults)?,
            None => Kind::of_type(&service.web, site, images, defaults)?,
        };
        let mut resources = kind.resources;
        if let Some(memory) = &service.memory {
            resources = resources.with_memory(memory, None)?;
        }
        if let Some(cpu) = &service.cpu {
            resources = resources.with_cpu(cpu, None)?;
        }
        let extra = match &kind.runner_type {
            Some(_) => service.runner_arguments().map(str::to_owned).collect(),
            None => service.extra.clone(),
        };
        let Kind { type_name, image, runner_type, warning, .. } = kind;
        Ok(Self { type_name, image, runner_type, extra, resources, replicas, warning })
    }

    /// The container's command; `None` is the image's own.
    pub fn command(&self) -> Option<Vec<String>> {
        let runner_type = self.runner_type.as_deref()?;
        let words = [RUNNER, "--type", runner_type, "--port", &PORT.to_string()].map(str::to_owned);
        Some(words.into_iter().chain(self.extra.iter().cloned()).collect())
    }

    /// Arguments for the image's own command.
    pub fn arguments(&self) -> Option<Vec<String>> {
        (self.runner_type.is_none() && !self.extra.is_empty()).then(|| self.extra.clone())
    }
}

/// A type, or a tool's own image.
struct Kind {
    type_name: String,
    image: String,
    runner_type: Option<String>,
    resources: Resources,
    warning: Option<String>,
}

impl Kind {
    fn of_type(name: &str, site: &SiteConfig, images: &Images, defaults: Resources) -> Result<Self, WorkloadError> {
        if let Some(image) = images.find(name) {
            return Self::of_image(name, image, defaults);
        }
        let web_type = site.web_type(name).filter(|web_type| web_type.runs_on(BackendName::Kubernetes));
        let web_type = web_type.and_then(|web_type| Some((web_type, web_type.image.clone()?)));
        let Some((web_type, image)) = web_type else {
            return Err(unknown_type(name, site, images));
        };
        let mut resources = defaults;
        if web_type.memory.is_some() || web_type.cpu.is_some() {
            let memory = web_type.memory.as_deref().unwrap_or(&site.kubernetes.memory);
            let cpu = web_type.cpu.as_deref().unwrap_or(&site.kubernetes.cpu);
            resources = Resources::defaults(memory, cpu)?;
        }
        let runner_type = Some(web_type.runner_type.clone());
        Ok(Self { type_name: name.to_owned(), image, runner_type, resources, warning: None })
    }

    fn of_image(name: &str, image: &Image, defaults: Resources) -> Result<Self, WorkloadError> {
        let [memory_limit, memory_request] = &image.resources.memory;
        let [cpu_limit, cpu_request] = &image.resources.cpu;
        let mut resources = defaults;
        if let Some(limit) = memory_limit {
            resources = resources.with_memory(limit, memory_request.as_deref())?;
        }
        if let Some(limit) = cpu_limit {
            resources = resources.with_cpu(limit, cpu_request.as_deref())?;
        }
        let runner_type = image.runner_type.clone().unwrap_or_else(|| "generic".into());
        let warning = image.is_deprecated.then(|| format!("type {name} is deprecated; change to a newer one soon"));
        let image = image.image.clone();
        Ok(Self { type_name: name.to_owned(), image, runner_type: Some(runner_type), resources, warning })
    }

    fn of_tool(image: &str, tool: &Tool, site: &SiteConfig, resources: Resources) -> Result<Self, WorkloadError> {
        let image = own_image(image, &tool.name, site.buildservice_repository.as_deref())?;
        Ok(Self { type_name: BUILDSERVICE.into(), image, runner_type: None, resources, warning: None })
    }
}

fn unknown_type(name: &str, site: &SiteConfig, images: &Images) -> WorkloadError {
    if name == BUILDSERVICE {
        return WorkloadError::NoImage;
    }
    let of_site = site.types_on(BackendName::Kubernetes).filter(|web_type| web_type.image.is_some());
    let mut known: Vec<_> = images.names().chain(of_site.map(|web_type| &*web_type.name)).collect();
    known.sort_unstable();
    known.dedup();
    if known.is_empty() {
        return WorkloadError::NoTypes(name.to_owned());
    }
    WorkloadError::UnknownType { name: name.to_owned(), known: known.join(", ") }
}

/// The full name of a tool's own image. `NAME` and `tool-TOOL/NAME` are below the site's repository. An image of another tool must
/// be named in full, with the repository, against mistakes; other repositories are refused.
fn own_image(image: &str, tool: &str, repository: Option<&str>) -> Result<String, WorkloadError> {
    let repository = repository.ok_or(WorkloadError::NoRepository)?.trim_end_matches('/');
    let is_image_char = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let path = image.strip_prefix(repository).and_then(|rest| rest.strip_prefix('/'));
    let is_part = |part: &str| !part.is_empty() && !part.starts_with(['.', ':', '@', '-']);
    let is_valid = image.len() <= MAX_IMAGE_LEN
        && image.chars().all(is_image_char)
        && path.unwrap_or(image).split('/').all(is_part);
    if !is_valid {
        return Err(WorkloadError::Image(image.to_owned()));
    }
    let project = format!("tool-{tool}");
    match (path, image.split_once('/')) {
        // A project and a name in it.
        (Some(path), _) if path.contains('/') => Ok(image.to_owned()),
        (None, None) => Ok(format!("{repository}/{project}/{image}")),
        (None, Some((first, _))) if first == project => Ok(format!("{repository}/{image}")),
        _ => Err(WorkloadError::OtherProject {
            image: image.to_owned(),
            project,
            tool: tool.to_owned(),
            repository: repository.to_owned(),
        }),
    }
}

fn check_extra(extra: &[String]) -> Result<(), WorkloadError> {
    let bytes = extra.iter().map(|word| word.len() + 1).sum();
    if bytes > MAX_EXTRA_BYTES { Err(WorkloadError::ExtraTooLong(bytes)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_of_other_projects_need_their_full_name() {
        let site = Some("registry.example.org/");
        for (image, want) in [
            ("web", "registry.example.org/tool-hello/web"),
            ("web:v1", "registry.example.org/tool-hello/web:v1"),
            ("web@sha256:00", "registry.example.org/tool-hello/web@sha256:00"),
            ("tool-hello/hello:latest", "registry.example.org/tool-hello/hello:latest"),
            ("registry.example.org/tool-hello/web", "registry.example.org/tool-hello/web"),
            ("registry.example.org/tool-other/web:v2", "registry.example.org/tool-other/web:v2"),
        ] {
            assert_eq!(own_image(image, "hello", site).unwrap(), want, "{image}");
        }
        for image in
            ["tool-other/web", "evil.example.org/tool-hello/web", "registry.example.org/web", "tool-hello2/web"]
        {
            let error = own_image(image, "hello", site).unwrap_err().to_string();
            assert!(error.contains("is not of this tool, expected e.g. \"tool-hello/hello:latest\""), "{error}");
        }
        for image in
            ["", "/", "a b", "a//b", "tool-hello/../other/web", "tool-hello/", "web\n", "--x", "wêb", "tool-hello/."]
        {
            assert!(matches!(own_image(image, "hello", site), Err(WorkloadError::Image(_))), "{image:?}");
        }
        assert!(matches!(own_image("web", "hello", None), Err(WorkloadError::NoRepository)));
    }

    #[test]
    fn arguments_are_bounded() {
        let error = |extra: &[&str]| {
            let extra: Vec<_> = extra.iter().map(|&word| word.to_owned()).collect();
            check_extra(&extra).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(error(&["a b", "\"'$(x)", "\n", ""]), "");
        assert_eq!(error(&[&"x".repeat(MAX_EXTRA_BYTES - 1)]), "");
        assert!(error(&["", &"x".repeat(MAX_EXTRA_BYTES - 1)]).starts_with("the arguments have 65537 bytes"));
        assert!(error(&[&"x".repeat(1 << 20)]).contains("expected at most 65536"));
    }
}
