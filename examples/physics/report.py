"""The command line and the tables of the examples that train on several seeds."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

Numbers = dict[str, dict[str, float]]  # by row and column


def arguments(description: str | None, *, steps: int) -> argparse.ArgumentParser:
    """A parser with ``--seed``, ``--out`` and ``--steps``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="several seeds give means and deviations")
    parser.add_argument("--out", type=Path, help="folder for the table and the figure")
    parser.add_argument("--steps", type=int, default=steps, help=f"training steps per model, by default {steps}")
    return parser


def over_seeds(runs: Sequence[Numbers]) -> list[list[str]]:
    """Rows of cells, ``mean ± sd`` over the runs (the number itself for one run); a missing number is a dash."""
    columns = list(dict.fromkeys(column for row in runs[0].values() for column in row))
    return [
        ["model", *columns],
        *([name, *(_cell([run[name].get(column) for run in runs]) for column in columns)] for name in runs[0]),
    ]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([head, "|" + " --- |" * len(rows[0]), *body])


def write(folder: Path, name: str, title: str, options: argparse.Namespace, text: str) -> None:
    """``NAME.md``: title, command, the figure ``NAME.png`` of the first seed and the tables."""
    seeds = " ".join(map(str, options.seed))
    command = f"python -m examples.physics.{name} --seed {seeds} --steps {options.steps} --out {folder}"
    kind = "mean ± standard deviation over the seeds" if len(options.seed) > 1 else "one seed"
    head = f"# {title}\n\n    {command}\n\nNumbers: {kind}. Figure: seed {options.seed[0]}."
    page = f"{head}\n\n![{name}]({name}.png)\n\n{text}\n"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(page, encoding="utf-8")


def _cell(values: Sequence[float | None]) -> str:
    numbers = [x for x in values if x is not None]
    if not numbers:
        return "–"
    mean = _short(statistics.fmean(numbers))
    return mean if len(numbers) == 1 else f"{mean} ± {_short(statistics.stdev(numbers))}"


def _short(x: float) -> str:
    return f"{x:.3g}" if x == 0 or 1e-3 <= abs(x) < 1e4 else f"{x:.1e}"
