//! The structure of `src`: no cyclic imports among the files of a folder, and unsafe code only in two folders.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A module, as its path below the crate.
type Module = Vec<String>;

/// Every module with its code, without tests and comments.
fn modules(folder: &Path, path: &Module, found: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let file: PathBuf = entry.unwrap().path();
        let name = file.file_stem().unwrap().to_str().unwrap().to_owned();
        let path = [&path[..], std::slice::from_ref(&name)].concat();
        if file.is_dir() && name != "bin" {
            modules(&file, &path, found);
        } else if file.extension().is_some_and(|extension| extension == "rs") && !["lib", "tests"].contains(&&*name) {
            let text = fs::read_to_string(&file).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let code = text.lines().map(|line| line.split("//").next().unwrap());
            found.insert(path, code.collect::<Vec<_>>().join("\n"));
        }
    }
}

/// The paths in a tree of imports: `a::{b, c::{d, e}}` has three.
fn paths(tree: &str, before: &[String], found: &mut Vec<Module>) {
    let (mut depth, mut start) = (0, 0);
    for (at, c) in tree.char_indices().chain([(tree.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let (head, inner) = tree[start..at].split_once('{').unwrap_or((&tree[start..at], ""));
                let head = head.split(" as ").next().unwrap().split("::").map(str::trim);
                let head = head.filter(|word| !word.is_empty()).map(str::to_owned);
                let path = before.iter().cloned().chain(head).collect::<Module>();
                match inner.rsplit_once('}') {
                    Some((inner, _)) => paths(inner, &path, found),
                    None => found.push(path),
                }
                start = at + 1;
            }
            _ => {}
        }
    }
}

/// The paths that a module imports or uses in full.
fn imports(text: &str) -> Vec<Module> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let is_word = text[..at].chars().next_back().is_none_or(char::is_whitespace);
        let tree = text[at + 4..].split(';').next().unwrap();
        if is_word {
            paths(tree, &[], &mut found);
        }
    }
    for root in ["crate::", "super::"] {
        for (at, _) in text.match_indices(root) {
            let path = text[at..].split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).next().unwrap();
            found.push(path.split("::").map(str::to_owned).collect());
        }
    }
    found
}

/// The module that a path from `at` resolves to, through reexports.
fn target(at: &Module, path: &[String], all: &BTreeMap<Module, String>) -> Option<Module> {
    let mut path = path;
    let mut target = match path.first()?.as_str() {
        "crate" => vec![],
        "self" | "super" => at.clone(),
        first => all.contains_key(&[&at[..], &[first.to_owned()]].concat()).then(|| at.clone())?,
    };
    while let Some(root) = path.first().filter(|word| ["crate", "self", "super"].contains(&word.as_str())) {
        if root == "super" {
            target.pop();
        }
        path = &path[1..];
    }
    for word in path {
        let below = [&target[..], std::slice::from_ref(word)].concat();
        if all.contains_key(&below) {
            target = below;
            continue;
        }
        let mut exported = Vec::new();
        let text = all.get(&target).map_or("", String::as_str);
        text.split("use ").skip(1).for_each(|rest| paths(rest.split(';').next().unwrap(), &[], &mut exported));
        let from = exported.iter().find(|path| path.len() > 1 && path.last() == Some(word));
        let from = from.map(|path| [&target[..], &path[..1]].concat()).filter(|module| all.contains_key(module));
        return Some(from.unwrap_or(target));
    }
    Some(target)
}

#[test]
fn imports_within_a_folder_are_acyclic() {
    let mut all = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &vec![], &mut all);
    // From each file or folder to its siblings.
    let mut edges: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (module, text) in &all {
        for path in imports(text) {
            let Some(target) = target(module, &path, &all) else { continue };
            let common = module.iter().zip(&target).take_while(|(a, b)| a == b).count();
            if common < module.len() && common < target.len() {
                edges.entry(module[..=common].to_vec()).or_default().insert(target[..=common].to_vec());
            }
        }
    }
    assert!(edges.len() > 100, "only {} files import others: the test fails to parse the code", edges.len());
    let mut cycles = Vec::new();
    for start in edges.keys() {
        let (mut reached, mut next) = (BTreeSet::new(), vec![start]);
        while let Some(module) = next.pop() {
            next.extend(edges.get(module).into_iter().flatten().filter(|target| reached.insert((*target).clone())));
        }
        if reached.contains(start) {
            cycles.push(start.join("/"));
        }
    }
    assert!(cycles.is_empty(), "cyclic imports: {}", cycles.join(", "));
}

#[test]
fn unsafe_code_is_in_two_folders() {
    let mut found = BTreeMap::new();
    modules(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &vec![], &mut found);
    let is_allowed = |module: &Module| match &module[..] {
        [nginx, ffi, _, ..] => nginx == "nginx" && ffi == "ffi" || nginx == "table",
        [table, _] => table == "table",
        _ => false,
    };
    let others: Vec<_> = found.iter().filter(|(module, text)| text.contains("unsafe") && !is_allowed(module)).collect();
    assert!(others.is_empty(), "{:?}", others.iter().map(|(module, _)| module.join("::")).collect::<Vec<_>>());
}
