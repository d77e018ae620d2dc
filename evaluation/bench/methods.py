"""Which methods the benchmark fits, in which environment each lives, and how that environment is made."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synthehr.models.base import MODELS

__all__ = ["ENVIRONMENTS", "METHODS", "OURS", "PEERS", "Environment", "Method", "by_name", "python_of"]

HERE = Path(__file__).parent
CONSTRAINTS = HERE.parent.parent / "constraints.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A virtual environment of its own, because the peers' dependencies do not agree.

    Attributes:
        requirements: what pip installs.
        removed: what comes along, is not needed and cannot be loaded beside a torch for the CPU.
    """

    requirements: tuple[str, ...]
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """Something that makes a synthetic table from a real one.

    Attributes:
        script: the program that fits it, given a cell's folder.
        environment: name of its environment; None for synthehr's own.
        private: whether it takes an epsilon; without one, its cells stand once, at epsilon ``inf``.
        also: other ways to sample, whose tables the same fit gives; they are kept as methods of the name with a hyphen.
    """

    script: Path
    environment: str | None
    private: bool = True
    also: tuple[str, ...] = ()


ENVIRONMENTS: dict[str, Environment] = {
    # Its metadata leave out packaging and pyarrow, which it imports or the bench needs.
    "smartnoise": Environment(requirements=("smartnoise-synth==1.0.8", "packaging", "pyarrow")),
    "mostlyai": Environment(requirements=("mostlyai-engine==2.7.3", "pyarrow"), removed=("torchaudio", "torchvision")),
    # The pandas that it asks for does not load newer releases of pyarrow.
    "dpmm": Environment(requirements=("dpmm==0.1.9", "pyarrow<20")),
    "ctgan": Environment(requirements=("ctgan==0.12.1", "pyarrow")),
}
PEERS: dict[str, Method] = {
    "smartnoise-aim": Method(script=HERE / "fit_smartnoise.py", environment="smartnoise", also=("repaired",)),
    "smartnoise-aim-even": Method(script=HERE / "fit_smartnoise.py", environment="smartnoise", also=("repaired",)),
    "smartnoise-mst": Method(script=HERE / "fit_smartnoise.py", environment="smartnoise", also=("repaired",)),
    "smartnoise-dpctgan": Method(script=HERE / "fit_smartnoise.py", environment="smartnoise"),
    "mostlyai": Method(script=HERE / "fit_mostlyai.py", environment="mostlyai"),
    "dpmm-aim": Method(script=HERE / "fit_dpmm.py", environment="dpmm"),
    "ctgan": Method(script=HERE / "fit_ctgan.py", environment="ctgan", private=False),
    "tvae": Method(script=HERE / "fit_ctgan.py", environment="ctgan", private=False),
}
OURS: dict[str, Method] = {name: Method(script=HERE / "fit_own.py", environment=None) for name in MODELS}
METHODS: dict[str, Method] = {**OURS, **PEERS}


def python_of(name: str | None, *, envs: Path) -> Path:
    """The interpreter of an environment, which is made first where it is not there or was made for other versions.

    Raises:
        RuntimeError: pip could not install it; the text is pip's last line.
    """
    if name is None:
        return Path(sys.executable)
    environment, folder = ENVIRONMENTS[name], envs / name
    pin = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    wanted = hashlib.sha256(repr((environment, pin, sys.version_info[:2])).encode()).hexdigest()
    ready, python = folder / "ready", folder / "bin" / "python"
    if ready.is_file() and ready.read_text() == wanted:
        return python
    print(f"making the environment {name} in {folder}", flush=True)
    envs.mkdir(parents=True, exist_ok=True)
    _call([sys.executable, "-m", "venv", "--clear", str(folder)])
    # Without this pin the newest torch comes, with gigabytes of CUDA libraries.
    constraint = envs / f"{name}.constraints.txt"
    constraint.write_text(pin + "\n")
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    _call([*pip, "install", "-c", str(constraint), *environment.requirements])
    if environment.removed:
        _call([*pip, "uninstall", "--yes", *environment.removed])
    ready.write_text(wanted)
    return python


def _call(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()
        raise RuntimeError(f"{Path(command[0]).name} {' '.join(command[1:4])}: {lines[-1]}")


def by_name(names: list[str]) -> Mapping[str, Method]:
    """Methods by name; ``peers`` and ``ours`` stand for all of theirs."""
    groups = {"peers": PEERS, "ours": OURS, "all": METHODS}
    chosen: dict[str, Method] = {}
    for name in names:
        chosen |= groups[name] if name in groups else {name: METHODS[name]}
    return chosen
