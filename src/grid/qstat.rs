//! Parses the output of `qstat -u * -xml`.

use std::borrow::Cow;

use memchr::{memchr, memmem};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use super::jobs::{Job, JobState};

/// The root element, and the element of a job.
const ROOT: &[u8] = b"job_info";
const JOB: &[u8] = b"job_list";

/// Why qstat's output is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum JobsError {
    /// The output is truncated, or something else.
    #[error("no complete job_info element in qstat's output")]
    NoRoot,
    /// The output is not XML, even with Grid Engine's deviations.
    #[error("{reason} at byte {at} of qstat's output")]
    Malformed {
        /// The parser's error.
        reason: String,
        /// The byte offset of the error.
        at: u64,
    },
}

/// Parses qstat's output, with times in UTC.
///
/// Old Grid Engine prints elements named `JATASK: <anything>`, or without a name (`<>`, `</>`): these are skipped. A job with
/// two names or two owners gets an empty one, and so belongs to no tool.
pub fn parse_jobs(output: &[u8]) -> Result<Vec<Job>, JobsError> {
    let output = without_task_names(output);
    let mut reader = Reader::from_reader(&*output);
    let config = reader.config_mut();
    config.check_end_names = false;
    config.allow_unmatched_ends = true;
    config.allow_dangling_amp = true;
    let mut jobs = Vec::new();
    let mut job: Option<JobFields> = None;
    let (mut roots, mut is_first, mut is_whole) = (0_u32, true, false);
    loop {
        let event = reader.read_event();
        let at = reader.buffer_position();
        match event.map_err(|error| JobsError::Malformed { reason: error.to_string(), at })? {
            Event::Eof => break,
            // An element after the end of the root would be a second document.
            Event::Start(_) | Event::Empty(_) if is_whole => return Err(JobsError::NoRoot),
            Event::Start(start) if start.name().as_ref() == ROOT => {
                roots += 1;
                is_first = false;
            }
            Event::Empty(start) if start.name().as_ref() == ROOT => (is_whole, is_first) = (roots == 0, false),
            Event::Start(_) | Event::Empty(_) if is_first => return Err(JobsError::NoRoot),
            Event::Start(start) if start.name().as_ref() == JOB => job = Some(JobFields::new(&start)),
            Event::Start(start) => {
                if let Some(job) = &mut job {
                    job.open(start.name().as_ref());
                }
            }
            Event::End(end) if end.name().as_ref() == ROOT => {
                roots = roots.checked_sub(1).ok_or(JobsError::NoRoot)?;
                is_whole = roots == 0;
            }
            Event::End(end) if end.name().as_ref() == JOB => jobs.extend(job.take().map(JobFields::into_job)),
            Event::End(_) => {
                if let Some(job) = &mut job {
                    job.field = None;
                }
            }
            Event::Text(text) => {
                if let Some(job) = &mut job {
                    job.add(&text.decode().unwrap_or_default());
                }
            }
            Event::GeneralRef(name) => {
                if let Some(job) = &mut job {
                    job.add_entity(&name);
                }
            }
            _ => {}
        }
    }
    if is_whole && job.is_none() { Ok(jobs) } else { Err(JobsError::NoRoot) }
}

/// Replaces `<JATASK: anything>` by `<JATASK>`: the text may contain quotes.
fn without_task_names(output: &[u8]) -> Cow<'_, [u8]> {
    const TASK: &[u8] = b"JATASK:";
    let mut kept = Vec::new();
    let mut rest = output;
    while let Some(at) = memmem::find(rest, TASK) {
        let (before, name) = rest.split_at(at);
        kept.extend_from_slice(before);
        let is_element = before.ends_with(b"<") || before.ends_with(b"</");
        let end = if is_element { memchr(b'>', name).unwrap_or(name.len()) } else { TASK.len() };
        kept.extend_from_slice(if is_element { b"JATASK" } else { TASK });
        rest = &name[end..];
    }
    if rest.len() == output.len() {
        return Cow::Borrowed(output);
    }
    kept.extend_from_slice(rest);
    Cow::Owned(kept)
}

/// The fields of a job, while it is read.
#[derive(Default)]
struct JobFields {
    group: String,
    field: Option<Field>,
    number: Vec<String>,
    name: Vec<String>,
    owner: Vec<String>,
    state: Vec<String>,
    start: Vec<String>,
}

#[derive(Clone, Copy)]
enum Field {
    Number,
    Name,
    Owner,
    State,
    Start,
}

impl JobFields {
    fn new(start: &BytesStart<'_>) -> Self {
        let group = start.try_get_attribute("state").ok().flatten();
        let group = group.map(|attribute| String::from_utf8_lossy(&attribute.value).into_owned());
        Self { group: group.unwrap_or_default(), ..Self::default() }
    }

    fn open(&mut self, element: &[u8]) {
        self.field = match element {
            b"JB_job_number" => Some(Field::Number),
            b"JB_name" => Some(Field::Name),
            b"JB_owner" => Some(Field::Owner),
            b"state" => Some(Field::State),
            b"JAT_start_time" => Some(Field::Start),
            _ => None,
        };
        if let Some(values) = self.values() {
            values.push(String::new());
        }
    }

    fn values(&mut self) -> Option<&mut Vec<String>> {
        Some(match self.field? {
            Field::Number => &mut self.number,
            Field::Name => &mut self.name,
            Field::Owner => &mut self.owner,
            Field::State => &mut self.state,
            Field::Start => &mut self.start,
        })
    }

    fn add(&mut self, text: &str) {
        if let Some(value) = self.values().and_then(|values| values.last_mut()) {
            value.push_str(text);
        }
    }

    fn add_entity(&mut self, entity: &quick_xml::events::BytesRef<'_>) {
        let character = entity.resolve_char_ref().ok().flatten();
        let name = entity.decode().unwrap_or_default();
        match (character, quick_xml::escape::resolve_predefined_entity(&name)) {
            (Some(character), _) => self.add(character.encode_utf8(&mut [0; 4])),
            (None, Some(text)) => self.add(text),
            (None, None) => self.add(&format!("&{name};")),
        }
    }

    fn into_job(self) -> Job {
        let once = |values: Vec<String>| match &*values {
            [one] => one.trim().to_owned(),
            _ => String::new(),
        };
        let state = once(self.state);
        Job {
            number: once(self.number).parse().ok(),
            name: once(self.name),
            owner: once(self.owner),
            state: JobState::from_letters(&state, &self.group),
            since: unix_seconds(&once(self.start)),
        }
    }
}

/// Parses `2026-11-25T03:10:00` as UTC.
fn unix_seconds(text: &str) -> Option<u64> {
    let time: jiff::civil::DateTime = text.parse().ok()?;
    let second = jiff::tz::Offset::UTC.to_timestamp(time).ok()?.as_second();
    u64::try_from(second).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 8.1.9 prints it, shortened.
    fn output(jobs: &str) -> String {
        format!(
            "<?xml version='1.0'?>\n<job_info  xmlns:xsd=\"http://example.org/qstat.xsd\">\n  <queue_info>\n{jobs}  \
             </queue_info>\n  <job_info>\n  </job_info>\n</job_info>\n"
        )
    }

    fn job(group: &str, name: &str, owner: &str, state: &str) -> String {
        format!(
            "    <job_list state=\"{group}\">\n      <JB_job_number>1</JB_job_number>\n      <JAT_prio>0.55500</JAT_prio>\n      \
             <JB_name>{name}</JB_name>\n      <JB_owner>{owner}</JB_owner>\n      <state>{state}</state>\n      \
             <JAT_start_time>2026-11-25T03:10:00</JAT_start_time>\n      <slots>1</slots>\n    </job_list>\n"
        )
    }

    fn parsed(xml: &str) -> Vec<Job> {
        parse_jobs(xml.as_bytes()).unwrap_or_else(|error| panic!("{error}: {xml}"))
    }

    #[test]
    fn job_fields_are_read() {
        let jobs = parsed(&output(&job("running", "lighttpd-hello", "tools.hello", "r")));
        let want = Job {
            number: Some(1),
            name: "lighttpd-hello".into(),
            owner: "tools.hello".into(),
            state: JobState::Running,
            since: Some(1_795_576_200),
        };
        assert_eq!(jobs, [want]);
        assert_eq!(parsed(&output("")), []);
        assert_eq!(parsed("<job_info/>"), []);
    }

    #[test]
    fn deviations_of_old_grid_engine_are_skipped() {
        let good = job("running", "a-b", "tools.b", "r");
        for odd in [
            "<JATASK: 1-5:1>x</JATASK: 1-5:1>",
            "<JATASK:E>\n<JATASK:a=\"b>\n</JATASK:E>",
            "<></>",
            "<>\n<a></a></>",
            "<tasks>1-10:1</tasks>",
            "& &amp; &what; &#1;",
            "<!-- x --><![CDATA[<job_list>]]>",
            "</nobody>",
        ] {
            let before = good.replace("<JB_name>", &format!("{odd}<JB_name>"));
            let between = format!("{good}{odd}");
            for xml in [output(&before), output(&between)] {
                assert_eq!(parsed(&xml), parsed(&output(&good)), "{odd}");
            }
        }
    }

    #[test]
    fn names_are_unescaped_and_repeated_names_dropped() {
        let jobs = parsed(&output(&job("running", "a&amp;b&lt;c&#x41;&no;", "tools.b", "r")));
        assert_eq!(jobs[0].name, "a&b<cA&no;");
        let twice = job("running", "a</JB_name><JB_owner>tools.other</JB_owner><JB_name>b", "tools.b", "r");
        assert_eq!((&*parsed(&output(&twice))[0].owner, &*parsed(&output(&twice))[0].name), ("", ""));
    }

    #[test]
    fn truncated_output_is_refused() {
        let whole = output(&job("running", "a-b", "tools.b", "r"));
        let end = whole.trim_end().len();
        for len in 0..end {
            assert!(parse_jobs(&whole.as_bytes()[..len]).is_err(), "{}", &whole[..len]);
        }
        assert!(parse_jobs(&whole.as_bytes()[..end]).is_ok());
        for other in ["", "error: commlib error", "<html></html>", "<a/><job_info/>", "<job_info></job_info><job_info>"]
        {
            assert!(parse_jobs(other.as_bytes()).is_err(), "{other}");
        }
    }
}
