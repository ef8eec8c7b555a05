"""The house's rules on imports: light at the door, arrows in one direction, heavy packages behind walls."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = "mixed_r1_ray"
ROOT = Path(__file__).parents[1] / "src" / PACKAGE
FILES = sorted(ROOT.rglob("*.py"))
LIGHT = [
    "",
    ".main",
    ".config",
    ".config_load",
    ".config_fields",
    ".cluster_plan",
    ".dry_run",
    ".types",
    ".errors",
    ".rewards",
]
HEAVY = ("torch", "vllm", "deepspeed", "ray", "transformers")


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in FILES}


def imports(path: Path, top_level: bool) -> set[str]:
    """Absolute names that a file imports; with `top_level`, only what runs when it is itself imported."""
    tree = ast.parse(path.read_text())
    package = module_of(path) if path.name == "__init__.py" else module_of(path).rpartition(".")[0]
    found = set()
    for node in run_at_import(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            name = (
                importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                if node.level
                else node.module
            )
            found |= {f"{name}.{alias.name}" for alias in node.names} | {name}
    return found


def run_at_import(node: ast.AST):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from run_at_import(child)


def importers_of(package: str) -> list[str]:
    """Files, relative to the package, that import `package` anywhere, inside functions included."""
    return [
        str(path.relative_to(ROOT))
        for path in FILES
        if any(name == package or name.startswith(f"{package}.") for name in imports(path, top_level=False))
    ]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {PACKAGE}{module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_no_import_circle():
    # A submodule that names its own package is no circle: the package is in sys.modules by then.
    graph = {
        module: {
            name
            for name in imports(path, top_level=True)
            if name in MODULES and not module.startswith(f"{name}.")
        }
        - {module}
        for module, path in MODULES.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"import circle: {' -> '.join(error.args[1])}")


def test_vllm_stays_behind_rollout_and_sync():
    assert [path for path in importers_of("vllm") if not path.startswith(("rollout/", "sync/"))] == []


def test_deepspeed_stays_behind_policy_and_sync():
    assert [path for path in importers_of("deepspeed") if not path.startswith(("policy/", "sync/"))] == []


def test_algo_and_rewards_know_no_ray():
    inner = [path for path in importers_of("ray") if path.startswith(("algo/", "rewards/"))]
    assert [path for path in inner if path not in ("rewards/worker.py", "rewards/pool.py")] == []


def test_lower_layers_do_not_import_upper_ones():
    """main -> driver -> (rollout, rewards, policy, sync, data, runtime) -> (vlm, algo, types, config)."""
    layer = {"main": 3, "driver": 2} | dict.fromkeys(
        ("rollout", "rewards", "policy", "sync", "data", "runtime"), 1
    )
    upward = [
        f"{module} imports {name}"
        for module, path in MODULES.items()
        for name in imports(path, top_level=False)
        if name in MODULES and name != PACKAGE and module != PACKAGE
        and layer.get(name.split(".")[1], 0) > layer.get(module.split(".")[1], 0)
        and module.split(".")[1] in (*layer, "vlm", "algo", "types", "config")
    ]  # fmt: skip
    assert upward == []


def test_the_checks_above_see_relative_and_nested_imports(tmp_path):
    assert f"{PACKAGE}.config" in imports(ROOT / "config_load.py", top_level=True)
    assert f"{PACKAGE}.driver" in imports(ROOT / "main.py", top_level=False)
    assert f"{PACKAGE}.driver" not in imports(ROOT / "main.py", top_level=True)
