//! What all actions need: the tool, the site, the files in the home, and the request.

use std::ffi::OsString;
use std::path::{self, PathBuf};
use std::time::Duration;

use crate::tenant::Manifest;
use crate::web_type::{BackendName, SiteConfig};
use crate::webservice::account::current_tool;
use crate::webservice::console::Console;
use crate::webservice::error::WebserviceError;
use crate::webservice::error_log::ErrorLog;
use crate::webservice::manifest_file::ManifestFile;
use crate::webservice::options::{Options, Words};
use crate::webservice::plan::{ChosenBackend, check_options, choose_backend, plan_service};
use crate::webservice::service::{Service, Tool};
use crate::webservice::template::Template;

/// The longest wait without `--timeout`: a restart has two, within the minute that webservicemonitor allows.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(25);
/// The same with `--wait`.
const DEFAULT_WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// One run of the command.
pub struct Session<'a> {
    pub tool: Tool,
    pub site: SiteConfig,
    pub options: Options,
    pub web: Option<String>,
    pub extra: Vec<OsString>,
    pub manifest_file: ManifestFile,
    pub error_log: ErrorLog,
    pub console: &'a Console,
}

/// What the files in the home say, and the backend that follows.
pub struct Request {
    pub template: Template,
    /// An empty one if there is none.
    pub manifest: Manifest,
    pub backend: ChosenBackend,
    /// Types that perhaps only the command line or the manifest knows.
    pub other_types: Vec<String>,
}

impl<'a> Session<'a> {
    /// # Errors
    /// The user is no tool, or the site's configuration is invalid.
    pub fn begin(mut options: Options, words: Words, console: &'a Console) -> Result<Self, WebserviceError> {
        let tool = current_tool(options.project.clone())?;
        // The job has another working directory.
        options.config = path::absolute(&options.config)?;
        let site = SiteConfig::read(&options.config)?;
        let (manifest_file, error_log) = (ManifestFile::new(&tool.home), ErrorLog::new(&tool.home));
        Ok(Self { tool, site, options, web: words.web, extra: words.extra, manifest_file, error_log, console })
    }

    /// The longest time of each wait.
    pub fn timeout(&self) -> Duration {
        let default = if self.options.wait { DEFAULT_WAIT_TIMEOUT } else { DEFAULT_TIMEOUT };
        self.options.timeout.unwrap_or(default)
    }

    /// Reads the files in the home, and chooses the backend.
    ///
    /// # Errors
    /// A file is invalid, or the web service is on another backend.
    pub fn request(&self) -> Result<Request, WebserviceError> {
        let (template, path) = Template::find(&self.tool.home, self.options.template.as_deref())?;
        if let (Some(remark), Some(path)) = (template.remark(), path) {
            self.console.say(format!("{}: {remark}", path.display()));
        }
        let manifest = self.manifest_file.read()?.unwrap_or_default();
        let backend = choose_backend(&self.options, &template, &manifest, &self.site)?;
        check_options(&self.options, backend.name)?;
        let other_types = [&self.web, &template.web, &manifest.web].into_iter().flatten().cloned().collect();
        Ok(Request { template, manifest, backend, other_types })
    }

    /// The web service that is asked for. `extra` are its arguments on the command line.
    ///
    /// # Errors
    /// See [`PlanError`](crate::webservice::plan::PlanError).
    pub fn service(&self, request: &Request, extra: &[OsString]) -> Result<Service, WebserviceError> {
        let Request { template, manifest, backend, .. } = request;
        let words = (self.web.as_deref(), extra);
        Ok(plan_service(&self.options, words, template, manifest, &self.site, backend.name)?)
    }

    /// Says that the backend is the site's default.
    pub fn warn_of_default(&self, request: &Request) {
        let ChosenBackend { name, is_default } = request.backend;
        if is_default {
            self.console.say(format!(
                "No backend is given, so your webservice runs on {name}, the default. To choose another one: --backend, or \
                 \"backend:\" in service.template"
            ));
        }
    }

    /// `--config`, if it is not the default.
    pub fn own_config(&self) -> Option<&PathBuf> {
        Some(&self.options.config).filter(|path| path.as_os_str() != SiteConfig::PATH)
    }
}

/// The manifest of a web service that was started.
pub fn manifest_of(service: &Service, backend: BackendName, before: &Manifest) -> Manifest {
    Manifest {
        web: Some(service.web.clone()),
        backend: Some(backend.as_str().to_owned()),
        release: service.release.clone(),
        cpu: service.cpu.clone(),
        memory: service.memory.clone(),
        replicas: service.replicas,
        extra: service.extra.clone(),
        buildservice_image: service.buildservice_image.clone(),
        other: before.other.clone(),
    }
}
