#!/usr/bin/env python3
"""Prints the share of covered lines by folder of src/. Lines of unit tests, the end of a file from #[cfg(test)] on, do not count.

report.py LINES.info FLOOR-PERCENT: status 1 if the share outside src/bin is lower.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path

SOURCES = Path(__file__).resolve().parents[2] / "src"
TESTS = re.compile(r"^#\[cfg\((?:all\()?test\b.*\]\n(?:#\[.*\]\n)*mod \w+( \{|;)", re.MULTILINE)


def begin_of_tests(file: Path) -> int:
    """The first line of the file's unit tests, or a line past its end."""
    text = file.read_text()
    found = TESTS.search(text)
    return text.count("\n", 0, found.start() if found else len(text)) + 1 + (not found)


def covered_lines(info: Path) -> dict[Path, dict[int, bool]]:
    """By file, whether each line with code was run. A file may have several records, one per program."""
    files: dict[Path, dict[int, bool]] = defaultdict(lambda: defaultdict(bool))
    end = 0
    for line in info.read_text().splitlines():
        kind, _, value = line.partition(":")
        if kind == "SF":
            file = Path(value)
            end = begin_of_tests(file)
        elif kind == "DA":
            number, count = map(int, value.split(",")[:2])
            if number < end:
                files[file][number] |= count > 0
    return files


def main(info: str, floor: str) -> int:
    folders: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for file, lines in covered_lines(Path(info)).items():
        path = file.relative_to(SOURCES)
        if path.stem in ("tests", "testing") or "tests" in path.parts[:-1]:
            continue
        for name in (path.parts[0].removesuffix(".rs"), *([] if path.parts[0] == "bin" else ["all but bin"])):
            folders[name][0] += sum(lines.values())
            folders[name][1] += len(lines)
    total = folders.pop("all but bin")
    print(f"{'folder of src':<18} {'lines':>6} {'covered':>8} {'percent':>8}")
    for name, (covered, lines) in [*sorted(folders.items()), ("all but bin", total)]:
        print(f"{name:<18} {lines:>6} {covered:>8} {100 * covered / max(lines, 1):>8.1f}")
    return 0 if 100 * total[0] >= float(floor) * total[1] > 0 else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
