"""README and the other pages say what is true: the tree, the commands and their options, the Python, the links."""

import argparse
import importlib
import re
import shlex
import sys
from pathlib import Path

import jsonargparse
import pytest
import torch

from tests.conftest import AUDIO, small_student, small_teacher
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.audio import read_audio, write_audio

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/recipes.md",
    "docs/engines.md",
    "docs/vectors.md",
    "docs/weights.md",
]
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
ENTRY_POINTS = {
    "wavenet-prepare": "wavenet.prepare",
    "wavenet-train": "wavenet.train",
    "wavenet-train-pitch": "wavenet.pitch.train",
    "distill-train": "distill.train",
    "distill-train-phones": "distill.phones.train",
    "distill-synthesize": "distill.synthesize",
    "distill-evaluate": "distill.evaluate",
    "distill-benchmark": "distill.benchmark",
    "distill-export": "distill.export",
    "distill-ship": "distill.ship",
    "distill-weight-widths": "distill.weight_widths",
    "distill-train-flow": "distill.coupling.train",
    "distill-train-segments": "distill.latent.train",
    "distill-train-wavevae": "distill.wavevae.train",
    "distill-latent-table": "distill.latent.table",
    "distill-compare": "distill.comparison",
    "distill-frame-family": "distill.latent.frames",
    "distill-imagine": "distill.latent.imagine",
    "distill-vectors": "distill.vectors.train",
    "distill-vector-costs": "distill.vectors.costs",
}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[tuple[str, str]]:
    """(page, command) for every line of every shell block."""
    return [
        (page, line) for page in PAGES for block in blocks(page, "bash") for line in block.splitlines() if line.strip()
    ]


def tree() -> set[str]:
    """Paths named in README's tree, folders with a slash at the end."""
    (block,) = blocks("README.md", "text")
    found: set[str] = set()
    folders: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names = [line.split()[0]] + [name for name in line.split()[1:] if name.endswith(".yaml")]
        for name in names:
            found.add("".join(folders[:depth]) + name)
        if names[0].endswith("/"):
            folders[depth:] = [names[0]]
    return found


def module_of(words: list[str]) -> tuple[str, list[str]] | None:
    """The module whose main a command line calls, and its arguments; None for other programs."""
    if words[0] in ENTRY_POINTS:
        return ENTRY_POINTS[words[0]], words[1:]
    if words[:2] == ["python", "-m"] and words[2].startswith(("wavenet.", "distill.")):
        return words[2], words[3:]
    if words[0] == "python" and words[1].startswith("scripts/"):
        imported = re.search(r"^from (\S+) import main$", (ROOT / words[1]).read_text(encoding="utf-8"), re.MULTILINE)
        assert imported, f"{words[1]} does not import a main"
        return imported[1], words[2:]
    return None


class ParsedError(Exception):
    """Raised in place of the work once the arguments have been accepted."""


def test_every_path_of_the_tree_exists():
    found = tree()
    assert len(found) > 60
    for name in found:
        path = ROOT / name
        assert path.is_dir() if name.endswith("/") else path.is_file(), name


@pytest.mark.parametrize("folder", ["wavenet", "distill", "configs", "scripts", "docs"])
def test_every_file_is_in_the_tree(folder):
    found = tree()
    whole = {
        name
        for name in ("wavenet/bundled/", "wavenet/shipped/", "configs/smoke/", "configs/splits/", "docs/audio/")
        if name in found
    }
    assert len(whole) == 5
    for path in sorted((ROOT / folder).rglob("*")):
        name = path.relative_to(ROOT).as_posix()
        hidden = any(part.startswith((".", "__")) for part in path.relative_to(ROOT).parts)
        if hidden or path.is_dir() or path.suffix == ".png" or any(name.startswith(part) for part in whole):
            continue
        assert name in found, f"{name} is not in the tree"


@pytest.mark.parametrize(("page", "line"), commands())
def test_command_is_accepted_by_the_real_parser(page, line, monkeypatch):
    words = shlex.split(line)
    called = module_of(words)
    if called is None:
        assert words[0] in ("make", "pip", "python", ".", ".venv/bin/python", "tensorboard"), line
        return
    accepted = []
    for parser in (argparse.ArgumentParser, jsonargparse.ArgumentParser):
        monkeypatch.setattr(parser, "parse_args", stopping(parser.parse_args, accepted))
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParsedError):
        importlib.import_module(called[0]).main(called[1])
    assert accepted


def stopping(parse, accepted: list):
    """parse_args that parses and then stops the program."""

    def parse_and_stop(self, args=None, *rest, **more):
        accepted.append(parse(self, args, *rest, **more))
        raise ParsedError

    return parse_and_stop


def test_a_wrong_option_would_be_noticed(monkeypatch, capsys):
    """The check above can fail: the same road refuses an option that does not exist."""
    assert (
        importlib.import_module("distill.evaluate").main(["run", "--data", "x", "--out", "y", "--colour", "blue"]) == 2
    )
    assert "colour" in capsys.readouterr().err
    assert importlib.import_module("wavenet.train").main(["--out", "run", "--train.colour", "blue"]) == 2
    assert "colour" in capsys.readouterr().err


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = [shlex.split(line)[1] for _, line in commands() if line.startswith("make ")]
    assert {"demo", "test"} <= set(shown)
    mentioned = re.findall(r"`make ([a-z-]+)`", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    for target in shown + mentioned:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_console_commands_are_the_scripts():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for name, module in ENTRY_POINTS.items():
        assert f'{name} = "{module}:main"' in project
        assert f"`{name}`" in README


@pytest.mark.parametrize("page", PAGES)
def test_links_resolve(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), flags=re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", h.strip().lower()).replace(" ", "-") for h in headings}, target


def test_results_markers_are_there_once():
    assert README.count("<!-- results:begin -->") == README.count("<!-- results:end -->") == 1
    assert README.index("<!-- results:begin -->") < README.index("<!-- results:end -->")


def test_every_test_that_the_table_names_exists_and_all_proofs_are_in_it():
    named = set(re.findall(r"\(tests/(test_\w+\.py)\)", README))
    present = {path.name for path in (ROOT / "tests").glob("test_*.py")}
    assert named <= present
    properties = ("causality", "distributions", "flow", "kl", "layers", "learning", "samplers", "spectral", "trainer")
    for name in present:
        assert name in named or not name.removeprefix("test_").startswith(properties), name


@pytest.mark.parametrize("page", PAGES)
def test_python_blocks_compile(page):
    for block in blocks(page, "python"):
        compile(block, page, "exec")


def test_python_of_the_readme_runs(tmp_path, monkeypatch):
    """On a tiny teacher and student, untrained, in place of runs/teacher and runs/student."""
    for name, model in (("teacher", small_teacher().float()), ("student", small_student().float())):
        (tmp_path / "runs" / name).mkdir(parents=True)
        path = tmp_path / "runs" / name / checkpoint.FILE_NAME
        checkpoint.save(path, kind=name, config=to_dict(model.config), model_state=model.state_dict())
    generator = torch.Generator().manual_seed(0)
    write_audio(tmp_path / "recording.wav", 0.1 * torch.randn(100, generator=generator), AUDIO.sample_rate)
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("README.md", "python")
    names: dict = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), names)
    assert names["fast"].shape == names["slow"].shape == names["divergence"].shape == (1, 96)
    assert names["likelihood"].shape == (1,)
    assert len(read_audio(tmp_path / "fast.wav")[0]) == 96


def test_python_of_the_recipes_page_prints_the_table(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    (block,) = blocks("docs/recipes.md", "python")
    exec(compile(block, "recipes.md", "exec"), {"__name__": "recipes"})
    printed = capsys.readouterr().out.splitlines()
    table = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    for line, name in zip(printed, ("teacher_mol", "student_mol"), strict=True):
        assert f"| {line.replace(' ', ' | ')} |" in next(row for row in table.splitlines() if f"[{name}]" in row)


def test_python_version_of_the_readme_is_the_projects():
    assert sys.version_info >= (3, 10)
    assert 'requires-python = ">=3.10"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert "Python 3.10" in README


def test_results_are_filled_from_a_run():
    """The section that scripts/fill_results.py writes holds a table of systems, speeds and the machine."""
    section = README[README.index(BEGIN) : README.index(END)]
    for row in (
        "| recording |",
        "| teacher |",
        "| source-filter |",
        "| textbook |",
        "| griffin-lim |",
        "| source-filter | parallel |",
        "Machine: cpu",
    ):
        assert row in section
