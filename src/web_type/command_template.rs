//! A type's command: words with placeholders, some only if a file exists. No shell is involved.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::Path;

use serde::de::value::MapAccessDeserializer;
use serde::{Deserialize, Deserializer, de};

use super::home_path::HomePath;

/// What a placeholder stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `{port}`: the server's port.
    Port,
    /// `{home}`: the tool's home.
    Home,
    /// `{tool}`: the tool's name.
    Tool,
    /// `{mount}`: `/TOOL`, or `/` if the tool has a host of its own.
    Mount,
    /// `{config}`: the path of the generated configuration.
    Config,
}

/// One word; the value of a placeholder never splits it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(Placeholder),
}

/// An element of the command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Element {
    /// Always there.
    Word(Template),
    /// Only if a path exists.
    Conditional(ConditionalWords),
}

/// Words that need a file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionalWords {
    /// The path.
    #[serde(rename = "if")]
    condition: HomePath,
    words: Vec<Template>,
}

/// The command of a type.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct CommandTemplate(Vec<Element>);

/// Why a text is not a word of a command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name in braces is unknown.
    #[error(
        "unknown placeholder {{{0}}}, expected {{port}}, {{home}}, {{tool}}, {{mount}} or {{config}}; {{{{ and }}}} give braces"
    )]
    Placeholder(String),
    /// A brace without its partner.
    #[error("lone brace in {0:?}; {{{{ and }}}} give braces")]
    Brace(String),
    /// No program takes such a word.
    #[error("control character in {0:?}")]
    Control(String),
}

impl Placeholder {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "port" => Self::Port,
            "home" => Self::Home,
            "tool" => Self::Tool,
            "mount" => Self::Mount,
            "config" => Self::Config,
            _ => return None,
        })
    }
}

impl Template {
    /// # Errors
    /// A brace that begins no known placeholder, or a control character.
    pub fn try_new(text: &str) -> Result<Self, TemplateError> {
        if text.contains(char::is_control) {
            return Err(TemplateError::Control(text.to_owned()));
        }
        let mut pieces = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = after.strip_prefix("{{").or_else(|| after.strip_prefix("}}")) {
                literal.push_str(&rest[at..=at]);
                rest = after;
                continue;
            }
            let inside = after.strip_prefix('{').and_then(|after| after.split_once('}'));
            let (name, after) = inside.ok_or_else(|| TemplateError::Brace(text.to_owned()))?;
            let found = Placeholder::named(name).ok_or_else(|| TemplateError::Placeholder(name.to_owned()))?;
            if !literal.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut literal)));
            }
            pieces.push(Piece::Placeholder(found));
            rest = after;
        }
        literal.push_str(rest);
        if !literal.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(literal));
        }
        Ok(Self(pieces))
    }

    fn has(&self, placeholder: Placeholder) -> bool {
        self.0.contains(&Piece::Placeholder(placeholder))
    }

    fn fill(&self, value: &impl Fn(Placeholder) -> OsString) -> OsString {
        let mut word = OsString::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => word.push(text),
                Piece::Placeholder(placeholder) => word.push(value(*placeholder)),
            }
        }
        word
    }
}

impl CommandTemplate {
    /// Whether the type has no command of its own.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the first word is a program.
    pub fn has_program(&self) -> bool {
        let is_empty = |template: &Template| template.fill(&|_| OsString::from("x")) == OsStr::new("");
        matches!(self.0.first(), Some(Element::Word(program)) if !is_empty(program))
    }

    /// Whether a word that is always there has the placeholder.
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.0.iter().any(|element| matches!(element, Element::Word(word) if word.has(placeholder)))
    }

    /// The words for a tool with this home.
    pub fn words(&self, home: &Path, value: impl Fn(Placeholder) -> OsString) -> Vec<OsString> {
        let mut words = Vec::new();
        for element in &self.0 {
            match element {
                Element::Word(word) => words.push(word.fill(&value)),
                Element::Conditional(ConditionalWords { condition, words: more }) => {
                    if condition.exists(home) {
                        words.extend(more.iter().map(|word| word.fill(&value)));
                    }
                }
            }
        }
        words
    }
}

impl<'de> Deserialize<'de> for Template {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::try_new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Element;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, in quotes if it is a number or has braces, or {if: PATH, words: [...]}")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Element, E> {
                Template::try_new(text).map(Element::Word).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                ConditionalWords::deserialize(MapAccessDeserializer::new(map)).map(Element::Conditional)
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Result<String, TemplateError> {
        let value = |placeholder: Placeholder| OsString::from(format!("<{placeholder:?} {{port}}>"));
        Ok(Template::try_new(text)?.fill(&value).into_string().unwrap())
    }

    #[test]
    fn placeholders_are_filled_once() {
        for (text, want) in [
            ("", ""),
            ("plain $HOME `x`", "plain $HOME `x`"),
            (":{port}", ":<Port {port}>"),
            ("{mount}={home}/app.py", "<Mount {port}>=<Home {port}>/app.py"),
            ("{{port}} {{{port}}}", "{port} {<Port {port}>}"),
            ("{tool}{config}", "<Tool {port}><Config {port}>"),
        ] {
            assert_eq!(filled(text).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn unknown_placeholders_are_named() {
        let unknown = |name: &str| Err(TemplateError::Placeholder(name.into()));
        for (text, want) in [
            ("{Port}", unknown("Port")),
            ("{}", unknown("")),
            ("${PORT}", unknown("PORT")),
            ("{port", Err(TemplateError::Brace("{port".into()))),
            ("port}", Err(TemplateError::Brace("port}".into()))),
            ("a\nb", Err(TemplateError::Control("a\nb".into()))),
        ] {
            assert_eq!(filled(text), want, "{text}");
        }
        assert_eq!(
            filled("{x}").unwrap_err().to_string(),
            "unknown placeholder {x}, expected {port}, {home}, {tool}, {mount} or {config}; {{ and }} give braces"
        );
    }

    #[test]
    fn conditional_words_need_their_file() {
        let home = tempfile::tempdir().unwrap();
        let template: CommandTemplate =
            serde_saphyr::from_str("[server, {if: venv/, words: [--venv, '{home}/venv']}, end]").unwrap();
        let words = || template.words(home.path(), |_| "/a home".into()).join(OsStr::new("|")).into_string().unwrap();
        assert_eq!(words(), "server|end");
        std::fs::write(home.path().join("venv"), "").unwrap();
        assert_eq!(words(), "server|end", "not a directory");
        std::fs::remove_file(home.path().join("venv")).unwrap();
        std::fs::create_dir(home.path().join("venv")).unwrap();
        assert_eq!(words(), "server|--venv|/a home/venv|end");
        assert!(template.has_program());
        assert!(!serde_saphyr::from_str::<CommandTemplate>("['', a]").unwrap().has_program());
    }
}
