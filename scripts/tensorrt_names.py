"""Which names of TensorRT's Python bindings this project uses, and which the published bindings have.

    pip download --no-deps --dest WHEELS tensorrt-cu12-bindings==10.16.1.11      (of this Python; one or more releases)
    python -m scripts.tensorrt_names WHEELS

Writes `tests/compile/backends/bindings.json`: which of the names in use each release has, with their parameters, and
all flags, which are looked up by name. The bindings are asked themselves, in a process of their own; they load without
a GPU and without TensorRT, whose libraries are replaced by empty ones, since a class tells its members before any of
them is called.
Needs gcc, nm and readelf.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "tests" / "compile" / "backends" / "bindings.json"

# What TensorRT gave the variables of each source; all that hangs on them is a name of that class.
SOURCES: dict[str, dict[str, str]] = {
    "perception/engines/tensorrt_jobs.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "parser": "OnnxParser",
        "error": "ParserError",
        "config": "IBuilderConfig",
        "config.get_timing_cache()": "ITimingCache",
        "layer": "ILayer",
        "layer.type": "LayerType",
        "severity": "ILogger.Severity",
    },
    "perception/engines/tensorrt.py": {
        "runtime": "Runtime",
        "engine": "ICudaEngine",
        "engine.get_tensor_dtype(name)": "DataType",
    },
    "perception/engines/tensorrt_lane.py": {"engine": "ICudaEngine", "self._context": "IExecutionContext"},
}


FLAGS = ("BuilderFlag", "DataType", "NetworkDefinitionCreationFlag")


def used(source: str) -> dict[str, set[int]]:
    """Names a source uses, such as `Builder.create_network`, and with how many arguments it calls them."""
    tree = ast.parse((ROOT / source).read_text())
    found: dict[str, set[int]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and (name := _name_of(node, SOURCES[source])):
            found.setdefault(name, set())
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = _name_of(node.func, SOURCES[source])
            if name and not name.endswith("__init__"):
                found[name].add(len(node.args))
    return found


def _name_of(node: ast.Attribute, objects: dict[str, str]) -> str:
    owner = ast.unparse(node.value)
    if owner == "trt":
        return node.attr
    owner = owner.removeprefix("trt.") if owner.startswith("trt.") else objects.get(owner, "")
    return f"{owner}.{node.attr}" if owner else ""


def overridden(source: str) -> dict[str, int]:
    """Methods of TensorRT's classes that a source overrides, and how many arguments they take beside self."""
    tree = ast.parse((ROOT / source).read_text())
    return {
        f"{ast.unparse(base).removeprefix('trt.')}.{method.name}": len(method.args.args) - 1
        for made in ast.walk(tree)
        if isinstance(made, ast.ClassDef)
        for base in made.bases
        if ast.unparse(base).startswith("trt.")
        for method in made.body
        if isinstance(method, ast.FunctionDef) and not method.name.startswith("_")
    }


ASK = """
import json, sys
import tensorrt_bindings as trt
found = {"": {name: "" for name in dir(trt) if not name.startswith("__")}}
for path in sys.argv[1:]:
    owner = trt
    for part in path.split("."):
        owner = getattr(owner, part, None)
    if owner is not None:
        found[path] = {n: getattr(owner, n).__doc__ or "" for n in dir(owner) if not n.startswith("_")}
print(json.dumps(found))
"""


def recorded(wheel: Path) -> dict[str, dict[str, list[str]]]:
    """Class → member → its signatures, each the names of its parameters; the empty class stands for the module."""
    names = {name for source in SOURCES for name in (*used(source), *overridden(source))}
    classes = sorted({*FLAGS, *(name.rpartition(".")[0] for name in names)} - {""})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        zipfile.ZipFile(wheel).extractall(folder)
        _write_empty_libraries(folder / "tensorrt_bindings" / "tensorrt.so", folder)
        settings = {"LD_LIBRARY_PATH": str(folder), "PYTHONPATH": str(folder), "PATH": ""}
        command = [sys.executable, "-c", ASK, *classes]
        told = subprocess.run(command, env=settings, capture_output=True, text=True, check=True)
    found: dict[str, dict[str, str]] = json.loads(told.stdout)
    return {
        path: {
            n: list(_signatures(n, doc))
            for n, doc in members.items()
            if path in FLAGS or f"{path}.{n}".lstrip(".") in names
        }
        for path, members in found.items()
    }


def _signatures(name: str, doc: str) -> Iterator[str]:
    """Parameter names of each overload, self left out; those that may be left out end in `=`."""
    for line in doc.splitlines():
        match = re.match(rf"(?:\d+\. )?{re.escape(name)}\((self.*)\) -> ", line)
        if match:
            parameters = re.split(r",\s*(?=\w+(?::|$))", match[1])[1:]
            yield ", ".join(p.split(":")[0].strip() + ("=" if "=" in p else "") for p in parameters)


def _write_empty_libraries(bindings: Path, folder: Path) -> None:
    symbols = _said("nm", "-D", "--undefined-only", str(bindings))
    wanted = [line.split()[1] for line in symbols.splitlines() if line.split()[0] == "U" and "@" not in line]
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in wanted if not name.startswith("Py")))
    for library in sorted(set(re.findall(r"\[(libnv[\w.]+)\]", _said("readelf", "-d", str(bindings))))):
        _said("gcc", "-shared", "-fPIC", "-w", f"-Wl,-soname,{library}", "-o", str(folder / library), str(source))


def _said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main(folder: str) -> int:
    """Record every wheel of the folder."""
    record = {}
    for wheel in sorted(
        Path(folder).glob("*.whl"), key=lambda path: [int(n) for n in path.name.split("-")[1].split(".")]
    ):
        record[wheel.name.split("-")[1]] = {"source": wheel.name, "members": recorded(wheel)}
        print(wheel.name)
    RECORD.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n")
    return 0 if record else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
