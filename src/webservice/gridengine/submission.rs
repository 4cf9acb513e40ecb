//! The command line of qsub.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::tenant::{SafeWord, TenantFile, shorten};
use crate::web_type::{SiteConfig, is_grid_memory};
use crate::webservice::service::{Service, Tool};

/// The longest argument, in bytes: Grid Engine cuts longer ones silently at about 100,000 bytes.
const MAX_WORD_BYTES: usize = 64 * 1024;
/// The most of a tool's file with its memory.
const MAX_MEMORY_BYTES: usize = 64;
/// Where runners are whose path the site does not give. Grid Engine does not search for programs.
const RUNNER_DIRECTORY: &str = "/usr/bin";

/// Why a job cannot be described.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SubmissionError {
    /// Grid Engine cuts an argument at its first line end.
    #[error("argument {0:?} has a line break, where Grid Engine would cut it; put it into a file of yours")]
    LineBreak(String),
    /// Grid Engine cuts long arguments.
    #[error("argument {start:?}... has {len} bytes, expected at most {MAX_WORD_BYTES}; put it into a file of yours")]
    TooLong {
        /// The first characters.
        start: String,
        /// Its length.
        len: usize,
    },
    /// The path of the log means something else to qsub.
    #[error(
        "the home {0:?} has a character that qsub reads as something else (: , $ or a control character); ask an administrator"
    )]
    Home(PathBuf),
    /// The type cannot be a part of a job's name.
    #[error("type {0:?} cannot be in the name of a job")]
    Type(String),
    /// The release cannot be asked for.
    #[error("invalid release {0:?}")]
    Release(String),
}

/// Checks that the grid carries every byte of the arguments to the job.
///
/// # Errors
/// [`SubmissionError::LineBreak`] or [`SubmissionError::TooLong`].
pub fn check_words(extra: &[String]) -> Result<(), SubmissionError> {
    for word in extra {
        let start = || word.chars().take(40).collect();
        if word.contains('\n') {
            return Err(SubmissionError::LineBreak(start()));
        }
        if word.len() > MAX_WORD_BYTES {
            return Err(SubmissionError::TooLong { start: start(), len: word.len() });
        }
    }
    Ok(())
}

/// The arguments of qsub. No file of default options counts: `-clear`. No shell reads the job's command line: `-shell n`.
pub fn arguments(
    tool: &Tool,
    site: &SiteConfig,
    service: &Service,
    config: Option<&PathBuf>,
) -> Result<Vec<OsString>, SubmissionError> {
    check_words(&service.extra)?;
    let not_a_type = || SubmissionError::Type(shorten(&service.web));
    let web_type = site.web_type(&service.web).filter(|found| found.name == service.web).ok_or_else(not_a_type)?;
    let name = SafeWord::try_new(&web_type.name).ok_or_else(not_a_type)?;
    let log = tool.home.join("error.log");
    let is_plain =
        |path: &Path| path.to_str().is_some_and(|text| !text.contains(|c: char| c.is_control() || ":,$".contains(c)));
    if !is_plain(&log) {
        return Err(SubmissionError::Home(tool.home.clone()));
    }
    let mut resources = format!("h_vmem={}", memory(tool, site));
    if let Some(release) = &service.release {
        let release = SafeWord::try_new(release).ok_or_else(|| SubmissionError::Release(shorten(release)))?;
        resources += &format!(",release={release}");
    }
    let mut words: Vec<OsString> = ["-clear", "-terse", "-b", "y", "-shell", "n"].map(OsString::from).into();
    words.extend(["-N".into(), format!("{name}-{}", tool.name).into()]);
    words.extend(["-q".into(), OsString::from(&web_type.queue)]);
    words.extend(["-l".into(), OsString::from(resources)]);
    words.extend(["-o".into(), log.clone().into(), "-e".into(), log.into(), "-i".into(), "/dev/null".into()]);
    let runner = Path::new(&site.grid.runner);
    let runner = if runner.is_absolute() { runner.to_owned() } else { Path::new(RUNNER_DIRECTORY).join(runner) };
    words.extend([runner.into(), "--register-proxy".into()]);
    if site.canonical {
        words.push("--canonical".into());
    }
    if let Some(config) = config {
        words.extend(["--config".into(), config.into()]);
    }
    words.extend(["--type".into(), name.as_str().into()]);
    words.extend(service.runner_arguments().map(OsString::from));
    Ok(words)
}

/// The tool's memory: what the operator wrote for it, else the site's default.
fn memory(tool: &Tool, site: &SiteConfig) -> String {
    let path = site.grid.memory_directory.join(format!("{}.web-memlimit", tool.name));
    let written = TenantFile::open(&path).ok().flatten().and_then(|file| file.read_text(MAX_MEMORY_BYTES).ok());
    let written = written.map(|text| text.trim().to_owned()).filter(|text| is_grid_memory(text));
    written.unwrap_or_else(|| site.grid.memory.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(home: &str) -> Tool {
        Tool { name: "hello".into(), account: "tools.hello".into(), home: home.into(), uid: 50_001 }
    }

    fn words(config: &str, service: &Service) -> Result<String, SubmissionError> {
        let site = SiteConfig::parse(config).unwrap();
        let words = arguments(&tool("/home/h"), &site, service, None)?;
        Ok(words.iter().map(|word| word.to_str().unwrap().to_owned()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn job_is_described_as_by_the_old_command() {
        let service = |web: &str, release: Option<&str>, extra: &[&str]| Service {
            web: web.into(),
            release: release.map(str::to_owned),
            extra: extra.iter().map(|word| (*word).to_owned()).collect(),
            ..Service::default()
        };
        let log = "-o /home/h/error.log -e /home/h/error.log -i /dev/null";
        assert_eq!(
            words("", &service("lighttpd", None, &[])).unwrap(),
            format!(
                "-clear -terse -b y -shell n -N lighttpd-hello -q webgrid-lighttpd -l h_vmem=4G {log} /usr/bin/webservice-runner \
                 --register-proxy --type lighttpd"
            )
        );
        let config = "canonical: true\ngridengine: {memory: 2G, runner: /opt/run}";
        assert_eq!(
            words(config, &service("generic", Some("bookworm"), &["./x", "-y"])).unwrap(),
            format!(
                "-clear -terse -b y -shell n -N generic-hello -q webgrid-generic -l h_vmem=2G,release=bookworm {log} /opt/run \
                 --register-proxy --canonical --type generic ./x -y"
            )
        );
        assert!(words("", &service("generic", None, &["-x"])).unwrap().ends_with("--type generic -- -x"));
        for (wrong, words_of_error) in [
            (service("generic", None, &["a", "b\nc"]), "argument \"b\\nc\" has a line break"),
            (service("generic", None, &[&"x".repeat(65_537)]), "has 65537 bytes, expected at most 65536"),
            (service("generic", Some("a,b"), &[]), "invalid release"),
            (service("gen,eric", None, &[]), "cannot be in the name"),
        ] {
            let error = words("", &wrong).unwrap_err().to_string();
            assert!(error.contains(words_of_error), "{error}");
        }
        let site = SiteConfig::default();
        for home in ["/a:b", "/a,b", "/a$HOME", "/a\nb"] {
            let outcome = arguments(&tool(home), &site, &service("lighttpd", None, &[]), None);
            assert_eq!(outcome, Err(SubmissionError::Home(home.into())));
        }
    }

    #[test]
    fn memory_of_the_tool_precedes_the_default() {
        let directory = tempfile::tempdir().unwrap();
        let site = SiteConfig::parse(&format!("gridengine: {{memory_directory: {:?}}}", directory.path())).unwrap();
        for (text, want) in [
            ("6G\n", "6G"),
            ("512M", "512M"),
            ("1.5g", "1.5g"),
            ("", "4G"),
            ("6G,x=y", "4G"),
            ("0", "4G"),
            ("lots", "4G"),
        ] {
            std::fs::write(directory.path().join("hello.web-memlimit"), text).unwrap();
            assert_eq!(memory(&tool("/"), &site), want, "{text:?}");
        }
    }
}
