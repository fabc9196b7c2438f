"""distill-weight-widths: both kinds of weights are timed, at several places, and told apart."""

import json

import numpy as np
import pytest

from distill.weight_widths import compare_widths, main, widths_table
from wavenet.errors import USER_MISTAKE
from wavenet.fused import engine, weights


def test_both_widths_run_in_turn_each_time_elsewhere(monkeypatch):
    seen, found = [], engine.pack

    def pack(stack, alone=False):
        sizes, arrays = found(stack, alone)
        seen.append((sizes.narrow, arrays.present.ctypes.data))
        return sizes, arrays

    monkeypatch.setattr(engine, "pack", pack)
    monkeypatch.setattr("distill.weight_widths.pays", lambda dtype, count: dtype == np.float32 and count == 20992)
    row = compare_widths("16", seconds=0.01, places=2)
    assert [narrow for narrow, _ in seen] == ([0] * 4 + [1] * 4) * 2  # a run to warm up, and three
    assert len({place for _, place in seen}) == 4
    assert row["streamed_mib"] == 4 * 20992 / 2**20
    assert row["chosen"]
    assert row["ratio"] == row["narrow"]["median"] / row["wide"]["median"]
    assert row["wide"]["min"] <= row["wide"]["median"] <= row["wide"]["max"]
    assert weights._asked is None
    line = widths_table([row]).splitlines()[-1]
    assert line.startswith(f"| 16 channels | 0.1 | {row['wide']['median']:,.0f} |")
    assert line.endswith(f"| {row['ratio']:.2f} | 24 |")


def test_command(tmp_path, capsys):
    page, out = tmp_path / "page.md", tmp_path / "widths.json"
    page.write_text("# Page\n<!-- weight-widths:begin -->\nold\n<!-- weight-widths:end -->\n")
    settings = ["8", "--seconds", "0.01", "--places", "1", "--out", str(out)]
    assert main([*settings, "--page", str(page)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["rows"] == rows
    assert f"| 8 channels | 0.0 | {rows[0]['wide']['median']:,.0f} |" in page.read_text()
    assert "old" not in page.read_text()
    assert main(settings) == USER_MISTAKE
    assert "found an existing file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["student", "--out", "x.json"], "NET: found 'student', expected small, paper or a number of channels"),
        (["0", "--out", "x.json"], "NET: found '0'"),
        (["8", "--out", "x.txt"], "--out: found 'x.txt', expected a file name that ends in .json"),
        (["8", "--out", "x.json", "--places", "0"], "--places: found 0, expected at least 1"),
        (["8", "--out", "x.json", "--seconds", "-1"], "--seconds: found -1.0"),
        (["8", "--out", "x.json", "--page", "missing.md"], "missing.md: found no markers"),
    ],
)
def test_mistakes_have_a_line(settings, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(settings) == USER_MISTAKE
    assert said in capsys.readouterr().err
