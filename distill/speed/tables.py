"""What a benchmark says: ratios with their baseline's name, tables, and where the parallel student loses."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from distill.speed.contestants import KNOWN
from wavenet.teacher import SAMPLERS

Row = dict[str, Any]


def ratios(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each student's row over each sequential one, and each method over the slower ones of the same net, at the
    benchmark's own batch and length (not the sweeps')."""
    found = []
    for of, over in itertools.product(base(rows), base(rows)):
        sequential = of["method"] in SAMPLERS, over["method"] in SAMPLERS
        slower = of["net"] == over["net"] and KNOWN.index(over["method"]) < KNOWN.index(of["method"])
        if slower or sequential == (False, True):
            value = of["samples_per_second"] / over["samples_per_second"]
            names = {"of": f"{of['net']} {of['method']}", "over": f"{over['net']} {over['method']}"}
            found.append(names | {"net": of["net"], "device": of["device"], "value": value})
    return found


def base(rows: Sequence[Row]) -> list[Row]:
    """The first row of each net and method: the others show how cost grows with length and batch."""
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        first.setdefault((row["net"], row["method"]), row)
    return list(first.values())


def markdown_table(result: dict[str, Any]) -> str:
    """Speeds as a Markdown table, how they grow with length and batch as another, a line for each ratio."""
    rows = base(result["rows"])
    head = ["net", "method", "samples/s", "slowest to fastest", "samples/CPU-s", "x real time", "of FMA", "of floor"]
    head += ["of bound", "peak MB", "audio s"]
    lines = [_cells(head), "|---|---|" + "---:|" * (len(head) - 2)]
    for row in rows:
        memory = "-" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:,.0f}"
        speeds = [short(row[name]) for name in ("samples_per_second", "min", "max", "samples_per_cpu_second")]
        shares = [_share(row.get(name)) for name in ("share_of_fma", "share_of_floor", "share_of_bound")]
        cells = [row["net"], row["method"], speeds[0], f"{speeds[1]} to {speeds[2]}", speeds[3]]
        lines.append(_cells([*cells, f"{row['x_real_time']:.3g}", *shares, memory, f"{row['seconds_of_audio']:.3g}"]))
    if rows:
        first = rows[0]
        elsewhere = {f" ({row['method']} on {row['device']})": None for row in rows if row["device"] != first["device"]}
        setting = f"{first['device']}{''.join(elsewhere)}, {first['threads']} thread(s), batch {first['batch']}"
        products = "of the GPU's matrix products, in the precision of the method's"
        rate = "of the machine's multiply-adds" if first["device"] == "cpu" else products
        explained = (
            f"x real time is seconds of audio made in a second. Medians of {first['repeats']} on {setting}. of FMA: "
            f"the share {rate}; of floor: of the speed of a sampler that did nothing but read, "
            "as float32, the weights that each sample must; of bound: of one that did the delayed taps' multiply-adds "
            "besides."
        )
        lines += ["", explained]
    lines += growth(result["rows"])
    lines += [""] if result["ratios"] else []
    seconds = {f"{row['net']} {row['method']}": row["seconds_of_audio"] for row in rows}
    for r in result["ratios"]:
        lengths = _lengths(seconds[r["of"]], seconds[r["over"]])
        lines.append(f"- {r['of']} is {short(r['value'])} times as fast as {r['over']}{lengths}")
    verdicts = crossover(result)
    return "\n".join([*lines, *([""] if verdicts else []), *verdicts])


def growth(rows: Sequence[Row]) -> list[str]:
    """Samples a second for each length and batch of the sweeps as Markdown lines; none without sweeps."""
    places = list(dict.fromkeys((row["batch"], round(row["seconds_of_audio"], 2)) for row in _swept(rows)))
    if not places:
        return []
    places.sort()
    heads = [f"{batch} x {seconds:.3g} s" for batch, seconds in places]
    lines = ["", "Samples a second, all signals together, as batch and length grow (- would take too long a run):", ""]
    lines += [_cells(["net", "method", *heads]), "|---|---|" + "---:|" * len(heads)]
    for one in base(rows):
        same = [row for row in rows if (row["net"], row["method"]) == (one["net"], one["method"])]
        speeds = {(row["batch"], round(row["seconds_of_audio"], 2)): row["samples_per_second"] for row in same}
        if len(same) > 1:
            lines.append(_cells([one["net"], one["method"], *(_speed(speeds.get(place)) for place in places)]))
    return lines


def crossover(result: dict[str, Any]) -> list[str]:
    """A sentence for each student and teacher, both by their fastest method: who wins, and what it hangs on."""
    work = {net["name"]: net["macs_per_sample"] for net in result["nets"]}
    rows = base(result["rows"])
    students, teachers = (
        _fastest([row for row in rows if (row["method"] in SAMPLERS) == kind]) for kind in (False, True)
    )
    lines = []
    for student, teacher in itertools.product(students, teachers):
        ours, theirs = (row["samples_per_second"] for row in (student, teacher))
        rate, other = work[student["net"]] * ours, work[teacher["net"]] * theirs
        names = f"{student['net']} {student['method']}", f"{teacher['net']} {teacher['method']}"
        verdict = f"{short(ours / theirs)} times as fast as" if ours > theirs else "slower than"
        lengths = _lengths(student["seconds_of_audio"], teacher["seconds_of_audio"])
        share = "" if ours > theirs else f" ({ours / theirs:.2f} of its speed): the parallel student loses here"
        lines.append(
            f"- {names[0]} is {verdict} {names[1]}{lengths}{share}. It multiplies {rate / 1e9:.3g} G/s at "
            f"{work[student['net']] / 1e6:.3g} M a sample, the sampler {other / 1e9:.3g} G/s at "
            f"{work[teacher['net']] / 1e6:.3g} M; the student wins against teachers of more than "
            f"{work[student['net']] * other / rate / 1e6:.3g} M a sample that run at that rate."
        )
    return lines


def machine_line(result: dict[str, Any]) -> str:
    """The machine, its versions and its limits in a sentence of Markdown."""
    return f"Machine: {where(result['machine'])}. Limits: {limits_line(result['ceilings'])}."


def where(machine: Mapping[str, Any]) -> str:
    """What is known of a machine, in a line."""
    return ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)


def limits_line(limits: Mapping[str, float]) -> str:
    """The rates of distill.speed.ceilings in words."""
    names = {"fma": "multiply-adds", "gemm": "matrix x matrix"}
    names |= {f"gemm_{kind}": f"in {kind}" for kind in ("tf32", "float16", "bfloat16")} | {"gemv": "matrix x vector"}
    rates = [f"{text} {limits[key]:.1f} GFLOP/s" for name, text in names.items() if (key := f"{name}_gflops") in limits]
    return ", ".join([*rates, f"copy {limits['copy_gb_per_s']:.1f} GB/s"])


def short(value: float) -> str:
    """Three digits, or all of a large number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _fastest(rows: Sequence[Row]) -> list[Row]:
    """The fastest row of each net."""
    best: dict[str, Row] = {}
    for row in rows:
        if row["net"] not in best or row["samples_per_second"] > best[row["net"]]["samples_per_second"]:
            best[row["net"]] = row
    return list(best.values())


def _lengths(of: float, over: float) -> str:
    """What two rows made, where one made less: speeds may hang on that."""
    return "" if of == over else f" ({of:.3g} s of audio against {over:.3g} s)"


def _swept(rows: Sequence[Row]) -> list[Row]:
    """Rows of every net and method that has more than one."""
    names = [(row["net"], row["method"]) for row in rows]
    return [row for row, name in zip(rows, names, strict=True) if names.count(name) > 1]


def _cells(values: Sequence[str]) -> str:
    return "| " + " | ".join(values) + " |"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _speed(value: float | None) -> str:
    return "-" if value is None else short(value)
