//! Runs the fuzz targets on their seeds, on any compiler; and checks that each target has seeds and that `make fuzz` runs it.

#[path = "../../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of the checkout.
fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The names in a folder, without their extension.
fn names_in(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    let stem = |entry: fs::DirEntry| entry.path().file_stem().unwrap().to_str().unwrap().to_owned();
    entries.map(|entry| stem(entry.unwrap())).collect()
}

/// The seeds of each target, and how often `inputs_of` makes an input of them that the target fails on.
fn failing(inputs_of: impl Fn(&[u8]) -> Vec<Vec<u8>>) -> Vec<String> {
    let mut failing = Vec::new();
    for (name, check) in fuzz::TARGETS {
        let seeds = folder("fuzz/seeds").join(name);
        let entries: Vec<_> = fs::read_dir(&seeds).unwrap_or_else(|error| panic!("{seeds:?}: {error}")).collect();
        assert!(entries.len() >= 3, "{name} has {} seeds, expected at least 3", entries.len());
        for entry in entries {
            let path = entry.unwrap().path();
            let inputs = inputs_of(&fs::read(&path).unwrap());
            let failed = inputs.iter().filter(|input| catch_unwind(|| check(input)).is_err()).count();
            if failed > 0 {
                failing.push(format!("{}: {failed} of {} inputs", path.display(), inputs.len()));
            }
        }
    }
    failing
}

#[test]
fn targets_take_their_seeds() {
    assert_eq!(failing(|seed| vec![seed.to_vec()]), <[String; 0]>::default());
}

#[test]
fn targets_take_any_start_of_their_seeds() {
    // Every length of a short seed, some of a long one.
    let starts = |seed: &[u8]| (0..seed.len()).step_by(1 + seed.len() / 32).map(|len| seed[..len].to_vec()).collect();
    assert_eq!(failing(starts), <[String; 0]>::default());
}

#[test]
fn each_target_has_a_file_a_binary_and_seeds_and_is_run() {
    let targets: BTreeSet<String> = fuzz::TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(targets.len(), fuzz::TARGETS.len(), "a target occurs twice");
    let mut files = names_in(&folder("fuzz/src"));
    files.remove("lib");
    assert_eq!(files, targets, "fuzz/src");
    assert_eq!(names_in(&folder("fuzz/fuzz_targets")), targets, "fuzz/fuzz_targets");
    assert_eq!(names_in(&folder("fuzz/seeds")), targets, "fuzz/seeds");
    let output = Command::new(folder("fuzz/run")).arg("--list").output().unwrap();
    let listed: BTreeSet<String> = String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(listed, targets, "fuzz/run --list, which has the binaries in fuzz/Cargo.toml");
    for name in &targets {
        let entry = fs::read_to_string(folder("fuzz/fuzz_targets").join(format!("{name}.rs"))).unwrap();
        assert!(entry.contains(&format!("urlproxy_fuzz::{name}::check(")), "{name}.rs runs another target");
    }
    let makefile = fs::read_to_string(folder("Makefile")).unwrap();
    let recipe = makefile.split_once("\nfuzz: ").unwrap().1.split("\n\n").next().unwrap();
    assert!(recipe.contains("fuzz/run"), "make fuzz does not run fuzz/run");
}

#[test]
fn each_target_is_in_the_table_of_parsers() {
    let readme = fs::read_to_string(folder("fuzz/README.md")).unwrap();
    for (name, _) in fuzz::TARGETS {
        assert!(readme.contains(&format!("| `{name}` |")), "fuzz/README.md does not list {name}");
    }
}
