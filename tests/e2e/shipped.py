#!/usr/bin/env python3
"""Checks what Debian packages contain, before they are installed: bills of materials, and no path of the machine that built them.

    tests/e2e/shipped.py DEB...

Run in the checkout that the packages are of, as it compares with Cargo.lock and with what cargo links.
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

# The folders of a machine that builds. Rust's own builders have /rustc and /rust, in every program.
FOREIGN = [b"/.cargo/", b"/.rustup/", b"/registry/src/", b"/index.crates.io-", b"/target/release/", b"/rustlib/src/"]


class Wrong(Exception):
    """What is wrong with a package."""


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def expect(condition, words):
    if not condition:
        raise Wrong(words)


def foreign_paths():
    own = [os.getcwd(), os.environ.get("HOME"), os.environ.get("CARGO_HOME"), os.environ.get("CARGO_BUILD_BUILD_DIR"),
           os.environ.get("CARGO_TARGET_DIR")]
    return FOREIGN + [os.fsencode(path.rstrip("/")) + b"/" for path in own if path and len(path) > 1]


def linked():
    """What cargo links into a program: {(name, version)}."""
    tree = run("cargo", "tree", "--offline", "--locked", "--edges=normal,no-proc-macro", "--prefix=none", "--no-dedupe", "--format={p}")
    return set(re.findall(r"^(\S+) v(\S+)", tree, re.M))


def read_lock():
    with open("Cargo.lock", "rb") as lock:
        return {(each["name"], each["version"]): each.get("checksum") for each in tomllib.load(lock)["package"]}


def tests_only(crates):
    """Crates that tests use and no program: each must be absent."""
    with open("Cargo.toml", "rb") as manifest:
        names = tomllib.load(manifest)
    names = set(names["dev-dependencies"]) - set(names["dependencies"])
    expect(names, "Cargo.toml names no crate for tests only")
    return names - {name for name, _ in crates}


def check_sbom(path, package, version, crates, checksums):
    """Returns the crates that the bill names."""
    expect(path.exists(), f"{package} has no {path.name}")
    bill = json.loads(path.read_text())
    expect((bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6"), f"{path.name} is {bill['bomFormat']} {bill['specVersion']}")
    expect("timestamp" not in bill["metadata"] and "serialNumber" not in bill, f"{path.name} differs from build to build")
    about = bill["metadata"]["component"]
    expect((about["name"], about["version"]) == (package, version.partition(":")[2] or version),
           f"{path.name} is of {about['name']} {about['version']}, the package is {package} {version}")
    named = {}
    for component in bill["components"]:
        expect(component["licenses"], f"{component['name']} has no license")
        if component["purl"].startswith("pkg:cargo/"):
            crate = component["name"], component["version"]
            expect(crate not in named, f"{crate} is there twice")
            named[crate] = component["hashes"][0]["content"]
            expect(named[crate] and named[crate] == checksums[crate], f"{crate}: the checksum is not that of Cargo.lock")
    expect(set(named) == crates, f"{path.name} has not what cargo links: missing {sorted(crates - set(named))}, too much {sorted(set(named) - crates)}")
    others = tests_only(crates) & {name for name, _ in named}
    expect(not others, f"{path.name} names crates for tests: {sorted(others)}")
    known = {bill["metadata"]["component"]["bom-ref"], *(component["bom-ref"] for component in bill["components"])}
    for dependency in bill["dependencies"]:
        unknown = {dependency["ref"], *dependency["dependsOn"]} - known
        expect(not unknown, f"{path.name}: unknown references {sorted(unknown)}")
    return set(named)


def places(content):
    """What stands before the /src/ of each source file that panics name, with the crate's name and version at its end."""
    found = set()
    for folder in (b"/src/", b"/generated/"):
        at = -1
        while (at := content.find(folder, at + 1)) >= 0:
            # Strings follow each other without a gap. Crates of Rust's standard library are below /rust/deps.
            before = content[max(0, at - 80):at]
            if b"/rust/deps/" not in before:
                found.add(before)
    return found


def check_program(path, named, checksums):
    """Returns how many crates the program's panics name."""
    content = path.read_bytes()
    for prefix in foreign_paths():
        at = content.find(prefix)
        expect(at < 0, f"{path.name} has a path of the machine that built it: {content[max(0, at - 40):at + 80]!r}; "
                       "crates that were built before .cargo/rustc was there need `make clean`")
    found = {crate for before in places(content) for crate in checksums if before.endswith("-".join(crate).encode())}
    unnamed = found - named
    expect(not unnamed, f"{path.name} contains {sorted(unnamed)}, which the bill of materials does not name")
    expect(len(found) > 5, f"{path.name} names only {len(found)} crates in its panics; is .cargo/rustc in use?")
    return len(found)


def check(deb, crates, checksums):
    package, version = (run("dpkg-deb", "--field", deb, field).strip() for field in ("Package", "Version"))
    with tempfile.TemporaryDirectory() as folder:
        run("dpkg-deb", "--extract", deb, folder)
        root = Path(folder)
        programs = sorted({*root.glob("usr/bin/*"), *root.glob("usr/lib/nginx/modules/*.so")})
        programs = [path for path in programs if not path.is_symlink()]
        bill = root / f"usr/share/doc/{package}/sbom.cdx.json"
        if not programs:
            return f"{package}: no programs"
        named = check_sbom(bill, package, version, crates, checksums)
        files = {each["name"] for each in json.loads(bill.read_text())["metadata"]["component"]["components"]}
        expect(files == {f"/{path.relative_to(root)}" for path in programs}, f"the bill of {package} is of {sorted(files)}")
        counts = [f"{path.name} {check_program(path, named, checksums)}" for path in programs]
        return f"{package}: {len(named)} crates; named by panics: {', '.join(counts)}"


def main():
    checksums = read_lock()
    crates = {crate for crate in linked() if checksums.get(crate)}
    expect(len(sys.argv) > 1, "usage: tests/e2e/shipped.py DEB...")
    for deb in sys.argv[1:]:
        print(check(deb, crates, checksums), flush=True)


try:
    main()
except Wrong as wrong:
    sys.exit(f"shipped.py: {wrong}")
