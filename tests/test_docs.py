"""docs/theory.md: every check runs and holds, every linked file exists, every name is defined where the page says."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
THEORY = ROOT / "docs" / "theory.md"
TEXT = THEORY.read_text(encoding="utf-8")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE_LINK = re.compile(r"\[`([^`]+\.py)`\]\(\.\./([^)\s]+)\)")
SECTIONS = re.split(r"^## ", TEXT, flags=re.MULTILINE)[1:]


def blocks(section: str) -> list[str]:
    """The Python blocks of a section."""
    return re.findall(r"^```python\n(.*?)^```", section, flags=re.MULTILINE | re.DOTALL)


BLOCKS = [
    pytest.param(block, id=section.splitlines()[0].replace(" ", "-"))
    for section in SECTIONS
    for block in blocks(section)
]


def references() -> list[tuple[str, str]]:
    """(file, name) for every `name` that follows a code link in a list item that begins with "- Code:"."""
    found = []
    for item in re.findall(r"^- Code:(.*?)(?=^\S|^$)", TEXT, flags=re.MULTILINE | re.DOTALL):
        pieces = CODE_LINK.split(item)
        assert not re.findall(r"`[^`]+`", pieces[0]), f"a name before the first file: {item}"
        for label, target, names in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
            assert label == target
            found += [(target, name) for name in re.findall(r"`([^`]+)`", names)]
    return found


def defined(path: Path) -> set[str]:
    """Functions, classes, methods and module-level names of a file, methods and fields as Class.name."""
    names: set[str] = set()

    def collect(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                collect(node.body, f"{prefix}{node.name}.")
            if isinstance(node, ast.Assign):
                names.update(prefix + target.id for target in node.targets if isinstance(target, ast.Name))
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(prefix + node.target.id)

    collect(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return names


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("block", BLOCKS)
def test_check_runs_and_ends_in_an_assertion(block):
    tree = ast.parse(block)
    assert isinstance(tree.body[-1], ast.Assert)
    exec(compile(tree, str(THEORY), "exec"), {"__name__": "theory"})


def test_every_section_has_its_check_and_its_code():
    assert len(SECTIONS) == 42
    for section in SECTIONS:
        title = section.splitlines()[0]
        assert len(blocks(section)) == 1, title
        assert "\n- Code: " in section, title
        assert "$$" in section or "$\\" in section, title


def test_every_name_is_where_the_page_says():
    found = references()
    assert len(found) > 50
    for target, name in found:
        assert name in defined(ROOT / target), f"{name} is not defined in {target}"


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_links_of_every_page_resolve(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE)}
    for target in LINK.findall(text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        if path:
            assert (ROOT / "docs" / path).resolve().exists(), target
        else:
            assert anchor in anchors, target


def test_arxiv_numbers_are_well_formed_and_linked():
    numbers = set(re.findall(r"arXiv (\d{4}\.\d{5})", TEXT))
    linked = set(re.findall(r"https://arxiv\.org/abs/(\d{4}\.\d{5})", TEXT))
    assert numbers <= linked
