"""The shape of the package: its walls, its public names, and what importing it costs."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import llmcost_plugins

SOURCE = Path(llmcost_plugins.__file__).parent
FRAMEWORKS = ("langchain", "langchain_core", "langchain_openai", "langgraph", "llama_index")
BASE = {"context", "forks", "types", "events", "errors", "plan", "scope", "pricing", "tokens"}
SUPPORT = {"embeddings", "stores"}
ROOMS = {"ledger", "cache", "routing", "compression", "history", "prompting", "batching"}
HALL = {"flow"}
DOORS = {"langchain", "langgraph", "llamaindex"}
OUTER = DOORS | {"replay", "cli", "testing"}
MAY_IMPORT = {
    **dict.fromkeys(BASE, BASE),
    **dict.fromkeys(SUPPORT, BASE | SUPPORT),
    **{room: BASE | SUPPORT | {room} for room in ROOMS},
    **dict.fromkeys(HALL, BASE | SUPPORT | ROOMS | HALL),
    "langchain": BASE | SUPPORT | ROOMS | HALL | {"langchain"},
    "langgraph": BASE | SUPPORT | ROOMS | HALL | {"langchain", "langgraph"},
    "llamaindex": BASE | SUPPORT | ROOMS | HALL | {"llamaindex"},
    "testing": BASE | SUPPORT | {"testing"},
    "replay": BASE | SUPPORT | ROOMS | HALL | DOORS | {"replay", "testing"},
    "cli": BASE | SUPPORT | ROOMS | HALL | DOORS | {"replay", "cli", "testing"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def home(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if path.parent != SOURCE or path.name != "__init__.py"]


def test_imports_go_one_way() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in modules()
        for name in imports(path)
        if name.startswith("llmcost_plugins.") and name.split(".")[1] not in MAY_IMPORT[home(path)]
    ]
    assert wrong == []


def test_only_doors_and_replay_know_frameworks() -> None:
    wrong = [
        f"{path.relative_to(SOURCE)} imports {name}"
        for path in modules()
        if home(path) not in DOORS | {"replay"}
        for name in imports(path)
        if name.split(".")[0] in FRAMEWORKS
    ]
    assert wrong == []


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_importing_the_package_loads_no_framework_and_few_modules() -> None:
    code = "import sys; before = set(sys.modules); import llmcost_plugins; new = set(sys.modules) - before; print(*new)"
    loaded = run(code).split()
    assert len(loaded) < 100
    assert not [name for name in loaded if name.split(".")[0] in (*FRAMEWORKS, "numpy", "pydantic", "onnxruntime")]


def test_rooms_load_no_framework() -> None:
    rooms = ", ".join(f"llmcost_plugins.{room}" for room in ("cache", "routing", "ledger", "flow", "stores"))
    loaded = run(f"import sys, {rooms}; print(*sys.modules)").split()
    assert not [name for name in loaded if name.split(".")[0] in FRAMEWORKS]


def test_public_names_are_all_there() -> None:
    assert llmcost_plugins.__all__ == sorted(llmcost_plugins.__all__)
    for name in llmcost_plugins.__all__:
        assert getattr(llmcost_plugins, name).__name__ == name
        assert name in dir(llmcost_plugins)
