//! All types that a site has: the built-in ones, and those of its configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::LazyLock;

use serde::{Deserialize, Deserializer, de};

use super::definition::WebType;
use super::value::is_name;

/// Types, with names and aliases that are unique.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeSet(Vec<WebType>);

/// The built-in types, parsed.
static BUILTIN: LazyLock<Result<Vec<WebType>, String>> = LazyLock::new(|| {
    let Additions(types) =
        serde_saphyr::from_str(include_str!("builtin.yaml")).map_err(|error: serde_saphyr::Error| error.to_string())?;
    Ok(types.into_iter().filter_map(|(_, definition)| definition).collect())
});

/// Definitions by name, in the file's order; `None` removes a type.
struct Additions(Vec<(String, Option<WebType>)>);

impl Default for TypeSet {
    fn default() -> Self {
        // A test parses the file, so that the error never occurs.
        Self(BUILTIN.clone().unwrap_or_default())
    }
}

impl TypeSet {
    /// The type of this name or alias. A name counts before an alias.
    pub fn get(&self, name: &str) -> Option<&WebType> {
        let named = self.0.iter().find(|web_type| web_type.name == name);
        named.or_else(|| self.0.iter().find(|web_type| web_type.is_called(name)))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &WebType> {
        self.0.iter()
    }

    /// Adds and replaces types.
    fn with(mut self, Additions(additions): Additions) -> Result<Self, String> {
        for (name, addition) in additions {
            let at = self.0.iter().position(|web_type| web_type.name == name);
            match (at, addition) {
                (Some(at), Some(addition)) => self.0[at] = addition,
                (Some(at), None) => drop(self.0.remove(at)),
                (None, Some(addition)) => self.0.push(addition),
                (None, None) => return Err(format!("there is no built-in type {name:?} to remove")),
            }
        }
        let mut owners = BTreeMap::new();
        for web_type in &self.0 {
            for alias in &web_type.aliases {
                if let Some(owner) = owners.insert(alias, &web_type.name) {
                    return Err(format!("alias {alias:?} of {owner:?} and of {:?}, expected one owner", web_type.name));
                }
            }
        }
        Ok(self)
    }
}

impl<'de> Deserialize<'de> for TypeSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let additions = Option::<Additions>::deserialize(deserializer)?.unwrap_or(Additions(Vec::new()));
        Self::default().with(additions).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Additions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Additions;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("types by name, NAME: {command: [...], ...}")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Additions, A::Error> {
                let mut additions = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !is_name(&name) {
                        let expected = "expected letters a-z, digits, . _ + and -, at most 64 characters";
                        return Err(de::Error::custom(format!("invalid type name {name:?}, {expected}")));
                    }
                    let definition = match map.next_value::<Option<WebType>>()? {
                        Some(definition) => Some(
                            definition
                                .named(&name)
                                .map_err(|error| de::Error::custom(format!("type {name:?} has {error}")))?,
                        ),
                        None => None,
                    };
                    additions.push((name, definition));
                }
                Ok(Additions(additions))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_types_are_there() {
        BUILTIN.as_ref().unwrap();
        let set = TypeSet::default();
        let names: Vec<_> = set.iter().map(|web_type| &*web_type.name).collect();
        assert_eq!(names, ["generic", "lighttpd", "lighttpd-plain", "uwsgi-python", "uwsgi-plain", "nodejs"]);
        for (name, want, queue) in [
            ("python", "uwsgi-python", "webgrid-generic"),
            ("js", "nodejs", "webgrid-generic"),
            ("lighttpd", "lighttpd", "webgrid-lighttpd"),
            ("lighttpd-plain", "lighttpd-plain", "webgrid-lighttpd"),
        ] {
            let found = set.get(name).unwrap();
            assert_eq!((&*found.name, &*found.queue), (want, queue), "{name}");
        }
        assert_eq!(set.get("tomcat"), None);
    }

    #[test]
    fn site_adds_replaces_and_removes_types() {
        let set: TypeSet = serde_saphyr::from_str(
            "{python: {command: [python3, server.py]}, lighttpd: {command: [lighttpd2]}, uwsgi-plain: null, rust: {command: [a]}}",
        )
        .unwrap();
        let names: Vec<_> = set.iter().map(|web_type| &*web_type.name).collect();
        assert_eq!(names, ["generic", "lighttpd", "lighttpd-plain", "uwsgi-python", "nodejs", "python", "rust"]);
        assert_eq!(set.get("python").unwrap().name, "python", "a name counts before an alias");
        assert_eq!(set.get("lighttpd").unwrap().queue, "webgrid-generic");
        assert_eq!(set.get("uwsgi-plain"), None);
    }

    #[test]
    fn wrong_definitions_are_named() {
        for (text, want) in [
            ("{X: {command: [a]}}", "invalid type name \"X\", expected letters"),
            ("{x: {}}", "type \"x\" has no command, expected a program"),
            ("{x: {command: ['', a]}}", "type \"x\" has no command, expected a program"),
            ("{x: {command: [{if: a, words: [b]}]}}", "type \"x\" has no command, expected a program"),
            ("{x: {command: [a], arguments: command}}", "type \"x\" has command with \"arguments: command\""),
            ("{x: {command: [a], backends: []}}", "type \"x\" has empty backends"),
            ("{x: {command: [a, '{config}']}}", "type \"x\" has {config} without \"configuration\""),
            ("{x: {command: [a], configuration: lighttpd}}", "type \"x\" has configuration without {config}"),
            ("{x: {command: [a], configuration: apache}}", "apache"),
            ("{x: {command: [a], arguments: all}}", "all"),
            ("{x: {command: [a], queue: 'a,b'}}", "invalid value \"a,b\", expected one queue"),
            ("{x: {command: [a], memory: lots}}", "invalid value \"lots\", expected a quantity"),
            ("{x: {command: [a], needs: [/etc/passwd]}}", "invalid path \"/etc/passwd\", expected one below"),
            ("{x: {command: [a], needs: [{package: a}]}}", "script"),
            ("{x: {command: [a], backends: [grid]}}", "unknown backend \"grid\", expected \"gridengine\""),
            ("{x: {command: [a, {port}]}}", "port"),
            ("{x: {command: [a, 3]}}", "in quotes"),
            ("{x: {command: a b}}", "sequence"),
            ("{x: {command: [a], colour: red}}", "colour"),
            ("{x: {command: [a], aliases: [js]}}", "alias \"js\" of \"nodejs\" and of \"x\""),
            ("{x: null}", "no built-in type \"x\" to remove"),
            ("{x: {command: [a]}, x: {command: [a]}}", "uplicate"),
        ] {
            let error = serde_saphyr::from_str::<TypeSet>(text).unwrap_err().to_string();
            assert!(error.contains(want), "{text}: {error}");
        }
    }
}
