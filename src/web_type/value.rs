//! Checks single values of the site's configuration, so that the parser reports their line.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, de};

use super::quantity::Quantity;
use crate::tenant::SafeWord;

/// Whether a text is a name of a type or a release.
pub fn is_name(text: &str) -> bool {
    SafeWord::try_new(text).is_some()
}

/// A value that passes `check`, or an error that says what was expected.
fn checked<'de, D, E>(deserializer: D, check: impl Fn(&str) -> bool, expected: E) -> Result<String, D::Error>
where
    D: Deserializer<'de>,
    E: std::fmt::Display,
{
    let text = String::deserialize(deserializer)?;
    if check(&text) { Ok(text) } else { Err(de::Error::custom(format!("invalid value {text:?}, expected {expected}"))) }
}

/// A section; all of it may be commented out.
pub fn section<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A name.
pub fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, is_name, "letters a-z, digits, . _ + and -, at most 64 characters")
}

/// Names.
pub fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Name(#[serde(deserialize_with = "name")] String);
    Ok(Vec::<Name>::deserialize(deserializer)?.into_iter().map(|Name(name)| name).collect())
}

/// Text for one line of help.
pub fn line<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let is_line = |text: &str| text.chars().count() <= 200 && !text.chars().any(crate::text::must_escape);
    checked(deserializer, is_line, "one line of at most 200 characters")
}

/// A queue of Grid Engine, perhaps with a host: `webgrid@exec-1`.
pub fn queue<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| is_word(text, b"._@-"), "one queue, e.g. webgrid-generic")
}

/// An amount of memory as Grid Engine writes it.
pub fn grid_memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, is_grid_memory, "an amount of memory as in qsub -l h_vmem=4G")
}

/// Whether Grid Engine takes the text as an amount of memory: `512M`, `4G`, `1.5g`.
pub fn is_grid_memory(text: &str) -> bool {
    let number = text.strip_suffix(|unit: char| "kKmMgGtT".contains(unit)).unwrap_or(text);
    let is_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    number.len() <= 20
        && is_digits(whole)
        && is_digits(fraction)
        && number.bytes().any(|byte| (b'1'..=b'9').contains(&byte))
}

/// A quantity of Kubernetes.
pub fn quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, is_quantity, "a quantity of Kubernetes, e.g. 512Mi, 500m or 0.5")
}

/// The same, if given.
pub fn optional_quantity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    optional(deserializer, is_quantity, "a quantity of Kubernetes, e.g. 512Mi, 500m or 0.5")
}

fn is_quantity(text: &str) -> bool {
    Quantity::parse(text).is_ok()
}

/// A name, if given.
pub fn optional_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    optional(deserializer, is_name, "letters a-z, digits, . _ + and -, at most 64 characters")
}

/// A host or domain, if given.
pub fn optional_domain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    optional(deserializer, |text| is_word(text, b".-"), "a domain, e.g. toolforge.org")
}

/// A registry of images or an image, if given.
pub fn optional_image<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    optional(
        deserializer,
        |text| is_word(text, b"._/:@-"),
        "an image or a registry, e.g. registry.example.org/name:latest",
    )
}

/// A URL with `{tool}`, if given.
pub fn optional_tool_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let check = |text: &str| is_url(text) && text.contains("{tool}");
    optional(deserializer, check, "a URL with {tool}, e.g. https://tools.example.org/{tool}/")
}

/// The URL of the list of a proxy's routes.
pub fn list_url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let expected = "a URL, where HOST stands for each active proxy, e.g. http://HOST:8081/list";
    checked(deserializer, |text| is_url(text) && text.starts_with("http://"), expected)
}

/// The namespace of a tool.
pub fn namespace<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let is_rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let check = |text: &str| text.contains("{tool}") && text.replacen("{tool}", "", 1).bytes().all(is_rest);
    checked(deserializer, check, "a namespace with {tool}, e.g. tool-{tool}")
}

/// Something in Kubernetes: a namespace, a ConfigMap or a key of it.
pub fn object_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| is_word(text, b"._-"), "a name of Kubernetes, e.g. image-config")
}

/// The name or path of a program.
pub fn program<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| is_word(text, b"._+/-"), "a program or its path, e.g. /usr/bin/webservice-runner")
}

/// An absolute path.
pub fn absolute_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    let is_path = |text: &str| text.starts_with('/') && !text.contains(char::is_control);
    checked(deserializer, is_path, "an absolute path").map(PathBuf::from)
}

fn optional<'de, D, E>(deserializer: D, check: impl Fn(&str) -> bool, expected: E) -> Result<Option<String>, D::Error>
where
    D: Deserializer<'de>,
    E: std::fmt::Display,
{
    let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(None) };
    if check(&text) {
        Ok(Some(text))
    } else {
        Err(de::Error::custom(format!("invalid value {text:?}, expected {expected}")))
    }
}

/// Letters, digits and some other characters; the first is no hyphen, as that would begin an option.
fn is_word(text: &str, others: &[u8]) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || others.contains(&byte);
    !text.is_empty() && text.len() <= 255 && !text.starts_with('-') && text.bytes().all(is_valid)
}

fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let is_valid = |byte: u8| byte.is_ascii_graphic() && !b"\"'`\\<>".contains(&byte);
    rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/') && rest.bytes().all(is_valid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts() {
        for (text, grid, kubernetes) in [
            ("4G", true, true),
            ("1.5g", true, false),
            ("512Mi", false, true),
            ("500m", true, true),
            ("0.5", true, true),
            ("1", true, true),
            ("0", false, false),
            ("0.0G", false, false),
            ("-1", false, false),
            ("4G,hostname=x", false, false),
            ("4 G", false, false),
            (".5", false, true),
            ("5.", false, true),
            ("512K", true, false),
            ("", false, false),
            ("G", false, false),
            ("1e3", false, true),
        ] {
            assert_eq!((is_grid_memory(text), is_quantity(text)), (grid, kubernetes), "{text:?}");
        }
    }

    #[test]
    fn words_begin_no_option() {
        for (text, want) in [
            ("webgrid-generic", true),
            ("web@exec-1", true),
            ("-q", false),
            ("a,b", false),
            ("", false),
            ("a b", false),
        ] {
            assert_eq!(is_word(text, b"._@-"), want, "{text:?}");
        }
        for (text, want) in [("lighttpd", true), ("python3.11", true), ("-x", false), ("A", false), ("", false)] {
            assert_eq!(is_name(text), want, "{text:?}");
        }
    }
}
