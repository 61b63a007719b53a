#!/usr/bin/env python3
"""Takes AITER's code objects for gfx942 and gfx950 from its wheel on PyPI into target/aiter.

`python3 examples/aiter/fetch.py [WHEEL]` downloads the wheel with pip, or takes one that is there already. Nothing of it
is installed and nothing is committed: of its 40 MB only the code objects under aiter_meta/hsa are unpacked, as the
framework looks for them. aiter_meta/hsa/gfx950/f4gemm/NAME.co becomes target/aiter/f4gemm.NAME_gfx950.co.
"""

import hashlib
import pathlib
import subprocess
import sys
import tempfile
import zipfile

WHEEL = "amd-aiter==0.1.7.post2.dev18"
SHA256 = "fe139d74438217c35e87e3b961166bac8db2d381eadccb371da2e63615f05a31"
ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "target" / "aiter"
PREFIX = "aiter_meta/hsa/"


def download(folder):
    """Downloads the wheel alone, without what it depends on."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--no-deps", "--dest", folder, WHEEL], check=True)
    (wheel,) = pathlib.Path(folder).glob("*.whl")
    return wheel


def unpack(wheel):
    """Unpacks the code objects and returns how many there are."""
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != SHA256:
        sys.exit(f"{wheel} is not {WHEEL}: its SHA-256 is {digest}, expected {SHA256}")
    OUT.mkdir(parents=True, exist_ok=True)
    count = 0
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.namelist():
            if not member.startswith(PREFIX) or not member.endswith(".co"):
                continue
            arch, *folders = member.removeprefix(PREFIX).removesuffix(".co").split("/")
            (OUT / f"{'.'.join(folders)}_{arch}.co").write_bytes(archive.read(member))
            count += 1
    return count


def main():
    if len(sys.argv) > 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        wheel = pathlib.Path(sys.argv[1]) if len(sys.argv) == 2 else download(folder)
        print(f"{OUT.relative_to(ROOT)}: {unpack(wheel)} code objects")


main()
