"""The arrows of the house: wavenet never imports distill, no cycles, no re-exports, thin scripts, no grab-bags."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("wavenet", "distill")
    for path in sorted((ROOT / package).rglob("*.py"))
}


def imports(path: Path) -> set[str]:
    """Every module named by an import statement anywhere in the file, in functions and under TYPE_CHECKING too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_modules_were_found():
    assert {"wavenet.teacher", "distill.student", "distill.flows.autoregressive"} <= set(MODULES)


def test_wavenet_never_imports_distill():
    for name, path in MODULES.items():
        if name.split(".")[0] == "wavenet":
            assert not any(found.split(".")[0] == "distill" for found in imports(path)), name


def test_no_import_cycle():
    graph = {name: (imports(path) & MODULES.keys()) - {name} for name, path in MODULES.items()}
    # Packages hold no code, so naming one while importing from it is no edge.
    packages = {name for name, path in MODULES.items() if path.name == "__init__.py"}
    graph = {name: edges - packages for name, edges in graph.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph)


@pytest.mark.parametrize(
    "name",
    [
        "wavenet",
        "distill",
        "wavenet.sampling",
        "wavenet.distributions",
        "distill.coupling",
        "distill.engines",
        "distill.flows",
        "distill.latent",
        "distill.phones",
        "distill.vectors",
        "distill.wavevae",
    ],
)
def test_packages_export_nothing_but_the_version(name):
    for node in ast.parse(MODULES[name].read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom):
            assert [alias.name for alias in node.names] == ["__version__"]
        else:
            assert isinstance(node, (ast.Expr, ast.Assign)), ast.unparse(node)


def test_scripts_are_thin_and_hide_no_package():
    scripts = sorted((ROOT / "scripts").glob("*.py"))
    assert scripts
    for path in scripts:
        assert path.stem not in ("wavenet", "distill"), path
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        assert len(lines) <= 10, path


def test_no_grab_bag_files():
    for path in MODULES.values():
        assert path.stem not in ("utils", "util", "common", "helpers", "core", "misc"), path


def test_public_things_are_documented():
    for name, path in MODULES.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert ast.get_docstring(tree), name
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{name}.{node.name}"
