"""Fails if the wheel or the sdist in a folder lacks a file that the package needs, or carries one it must not."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
NEEDED = (
    "py.typed",
    "models/bundled/demo.mp4",
    "models/bundled/tsm_efflite0_weizmann.safetensors",
)
"""Besides every module, config and label file of the source tree."""
MAX_WHEEL_BYTES = 16 << 20


def main(dist: Path) -> None:
    """Checks both files in `dist`."""
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = set(archive.namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    package = REPO / "ppvcli"
    own = {
        path.relative_to(package).as_posix()
        for pattern in ("**/*.py", "configs/*.yaml", "models/labels/*.txt")
        for path in package.glob(pattern)
    }
    wanted = {f"ppvcli/{name}" for name in own | set(NEEDED)}
    faults = [f"{wheel.name} lacks {name}" for name in sorted(wanted - in_wheel)]
    faults += [
        f"{sdist.name} lacks {name}" for name in sorted(wanted | {"LICENSE", "README.md"}) if name not in in_sdist
    ]
    faults += [f"{wheel.name} holds {name}" for name in sorted(in_wheel) if not name.startswith(("ppvcli/", "ppvcli-"))]
    if not any(name.endswith("/licenses/LICENSE") for name in in_wheel):
        faults.append(f"{wheel.name} lacks the licence")
    if wheel.stat().st_size > MAX_WHEEL_BYTES:
        faults.append(f"{wheel.name} has {wheel.stat().st_size} bytes, more than {MAX_WHEEL_BYTES}")
    if faults:
        sys.exit("\n".join(faults))
    print(f"{wheel.name}: {len(in_wheel)} files, {wheel.stat().st_size} bytes; {sdist.name}: {len(in_sdist)} files")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
