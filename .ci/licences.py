#!/usr/bin/env python3
"""Checks what deny.toml says of licences and sources, from `cargo metadata` alone.

    .ci/licences.py

Every crate that this workspace depends on, with all features, has to have a licence expression that the list in deny.toml
satisfies, and to come from crates.io; and no crate of the workspace may ask for any version (`*`) of another. cargo-deny,
which checks the advisories too, takes longer to build than everything else in this script's step.

Exit status: 0 if all of it holds, 1 otherwise.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"


def tokens(expression):
    # An old form separates alternatives by a slash.
    return re.findall(r"[()]|[^\s()]+", expression.replace("/", " OR "))


def satisfied(expression, allowed):
    """Whether an SPDX expression holds with the allowed licences alone."""
    rest = tokens(expression)

    def term():
        if rest[0] == "(":
            rest.pop(0)
            value = alternatives()
            if rest.pop(0) != ")":
                raise ValueError(expression)
            return value
        name = rest.pop(0)
        if rest[:1] == ["WITH"]:
            name = " ".join([name, rest.pop(0), rest.pop(0)])
        return name in allowed

    def all_of():
        value = term()
        while rest[:1] == ["AND"]:
            rest.pop(0)
            value = term() and value
        return value

    def alternatives():
        value = all_of()
        while rest[:1] == ["OR"]:
            rest.pop(0)
            value = all_of() or value
        return value

    value = alternatives()
    if rest:
        raise ValueError(expression)
    return value


def main():
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    allowed = set(rules["licenses"]["allow"])
    command = ["cargo", "metadata", "--locked", "--all-features", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
    members = set(metadata["workspace_members"])
    wrong = []
    for package in metadata["packages"]:
        name = f"{package['name']} {package['version']}"
        licence = package["license"]
        if licence is None:
            wrong.append(f"{name}: no licence expression")
        elif not satisfied(licence, allowed):
            wrong.append(f"{name}: {licence} is not allowed")
        if package["id"] in members:
            for dependency in package["dependencies"]:
                if dependency["req"] == "*" and dependency["path"] is None:
                    wrong.append(f"{name}: any version of {dependency['name']} would do")
        elif package["source"] != CRATES_IO:
            wrong.append(f"{name}: comes from {package['source'] or 'a folder'}")
    for line in wrong:
        print(line)
    print(f"{len(metadata['packages'])} crates: {len(wrong) or 'nothing'} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
