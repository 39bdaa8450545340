"""The study's tables in markdown, next to the published numbers, from the cells that are finished."""

from __future__ import annotations

import json
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from examples.measurement.features import READOUTS
from examples.measurement.structure import ROLLOUT
from examples.paper.cells import Record, read_cells
from examples.paper.figures import draw_figures
from examples.paper.grid import base_table
from examples.paper.published import PUBLISHED
from examples.recipe.schema import METHODS
from examples.recipe.sections import HEADLINE_K
from examples.system.files import write_atomically

# Columns about the predictor at the end of training: keys of `learned_force`, the second one a denominator.
DYNAMICS = {
    "learned / base force": ("learned_force", "base_force"), "weights moved": ("movement",),
    "q moved": ("displacement",),
}  # fmt: skip
MEASURES = {"knn": f"kNN@{HEADLINE_K}", "linear": "linear"}


def write_report(out: Path, to: Path) -> str:
    """Write ``report.md``, ``results.json`` and figures for the study in ``out`` to the folder ``to``; return the text.

    Raises:
        SystemExit: as `read_cells`, or if a figure's input is damaged.
    """
    records = read_cells(out)
    tables = {name: [r for r in records if r["table"] == name] for name in sorted({r["table"] for r in records})}
    parts = ["# Results\n", _protocol(records)]
    for name, found in tables.items():
        if base_table(name) != name:
            base = [r for r in tables.get(base_table(name), []) if r["name"] == "hamjepa"]
            parts.append(_variants(name, base, found))
        else:
            parts.append(_accuracies(name, found))
            parts += [f"![{title}]({file})\n" for title, file in draw_figures(out, to, name, found)]
    text = "\n".join(parts)
    to.mkdir(parents=True, exist_ok=True)
    write_atomically(to / "results.json", json.dumps(records, indent=1) + "\n")
    write_atomically(to / "report.md", text)
    return text


def accuracy(row: Record, measure: str) -> float:
    """kNN at the headline k, or the linear probe: top-1 in percent."""
    value: float = row["knn"][str(HEADLINE_K)]["top1"] if measure == "knn" else row["linear"]["top1"]
    return value


def by_readout(records: Iterable[Record]) -> dict[str, dict[int, Record]]:
    """Rows of the table: readouts, each by seed."""
    rows: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in records:
        for name, row in record.get("readouts", {}).items():
            rows[name][record["seed"]] = row
    return rows


def mean_std(values: list[float]) -> str:
    """``mean ± standard deviation``, or a single value as it is."""
    if len(values) == 1:
        return f"{values[0]:.2f}"
    return f"{statistics.mean(values):.2f} ± {statistics.stdev(values):.2f}"


def within(published: float, values: list[float]) -> str:
    """Whether a published number is within two standard deviations of ours."""
    if len(values) == 1:
        return "one seed"
    return "yes" if abs(published - statistics.mean(values)) <= 2 * statistics.stdev(values) else "no"


def _protocol(records: list[Record]) -> str:
    machines = sorted({f"{r['machine']['device']}, {r['machine']['cores']} cores" for r in records})
    versions = sorted({f"torch {r['machine']['torch']}, Python {r['machine']['python']}" for r in records})
    return (
        f"Written by `examples.reproduce` from {len(records)} cells ({'; '.join(machines)}; {'; '.join(versions)}).\n\n"
        "Top-1 in percent, frozen encoder without a projector. kNN: cosine similarity, unweighted vote among the "
        f"{HEADLINE_K} nearest training features (`best k` is the best of the sweep). Linear probe: last epoch. "
        "LeJEPA uses another protocol, with a projector. `±` is the standard deviation over seeds. Raw pixels and the "
        "untrained encoder are the baselines. Effective rank (ER) and participation ratio (PR) use the 256 largest "
        "eigenvalues.\n"
    )


def _accuracies(name: str, records: list[Record]) -> str:
    rows, published = by_readout(records), PUBLISHED.get(name, {})
    head = ["features", "dim", "seeds", *MEASURES.values(), "best k", "ER", "PR"]
    if published:
        head += [f"{x}, {title}" for title in MEASURES.values() for x in ("paper", "within 2 sd of ours")]
    order = ["raw pixels", "untrained encoder"]
    order += [f"{method}-{readout}" for method in ("SIGReg", "MLP-HJEPA", "HamJEPA") for readout in (*READOUTS, "z")]
    lines = []
    for row in sorted(rows, key=lambda row: (*order, row).index(row.partition(" (")[0])):
        cells = list(rows[row].values())
        values = {m: [accuracy(c, m) for c in cells] for m in MEASURES}
        best = [c["knn_best"]["top1"] for c in cells]
        line = [row, str(cells[0]["dim"]), str(len(cells)), *map(mean_std, values.values()), mean_std(best)]
        line += [f"{statistics.mean(c[key] for c in cells):.1f}" for key in ("effective_rank", "participation_ratio")]
        if published:
            theirs = published.get(row)
            for measure in MEASURES:
                line += _published(theirs, measure, values[measure]) if theirs else ["–", "–"]
        lines.append(line)
    parts = [_table(head, lines), _paired(rows), _structure(records), _isotropy(rows), [*_cost(records), ""]]
    body = [line for part in parts for line in part]
    return "\n".join([f"## {name}\n", *_overrides(records), *body, *_failures(records), ""])


def _published(theirs: Any, measure: str, values: list[float]) -> list[str]:
    number, spread = getattr(theirs, measure), getattr(theirs, f"{measure}_std")
    return [f"{number:.2f}" + (f" ± {spread:.2f}" if spread is not None else ""), within(number, values)]


def _paired(rows: dict[str, dict[int, Record]]) -> list[str]:
    """Differences between two methods on the same seeds."""
    lines = []
    for first, second in (("HamJEPA", "SIGReg"), ("HamJEPA", "MLP-HJEPA"), ("MLP-HJEPA", "SIGReg")):
        for readout in READOUTS:
            a, b = rows.get(f"{first}-{readout}", {}), rows.get(f"{second}-{readout}", {})
            seeds = sorted(a.keys() & b.keys())
            if seeds:
                gaps = {m: [accuracy(a[s], m) - accuracy(b[s], m) for s in seeds] for m in MEASURES}
                lines.append([f"{first} − {second}, {readout}", str(len(seeds)), *map(mean_std, gaps.values())])
    return _table(["paired difference, points", "seeds", *MEASURES.values()], lines)


def _structure(records: list[Record]) -> list[str]:
    """What the trained predictors' maps preserve, worst over seeds."""
    worst: dict[str, dict[str, float]] = defaultdict(dict)
    for record in records:
        for name, numbers in record.get("structure", {}).items():
            for key, value in numbers.items():
                worst[name][key] = max(value, worst[name].get(key, -math.inf))
    columns = {
        "symplecticity_defect": "‖JᵀΩJ − Ω‖", "round_trip_error_100": "round trip, 100 applications",
        "energy_drift_max": f"energy error within {ROLLOUT}", "area_ratio": f"area after {ROLLOUT}, relative",
    }  # fmt: skip
    lines = [[name, *(f"{numbers[key]:.3g}" for key in columns)] for name, numbers in worst.items()]
    note = "Explicit Euler uses HamJEPA's trained energy. The residual MLP has no energy; its error is that of ½‖z‖²."
    return _table(["map of the trained predictor, float64", *columns.values()], lines, note)


def _isotropy(rows: dict[str, dict[int, Record]]) -> list[str]:
    """What the theory says about each readout of the training features, mean over seeds."""
    head = ["worst-case task variance", "price of isotropy", "regret of the features", "features / isotropic"]
    keys, lines = ("price", "regret", "worst_case_ratio"), []
    for name, cells in rows.items():
        found = [row["isotropy"] for row in cells.values() if row.get("isotropy")]
        if found:
            lines.append([name, *(mean_std([x[key] for x in found]) for key in keys)])
    note = (
        "Tasks are linear readouts of the classes from training features (`symplectic_jepa.theory.isotropy_report`). "
        "Price and regret are worst cases relative to the best covariance: for an isotropic one, and for the features' "
        "own. Their ratio is below 1 where the features do better than isotropic ones."
    )
    return _table(head, lines, note)


def _variants(name: str, base: list[Record], records: list[Record]) -> str:
    """Variants of the recipe, each next to the recipe itself with the same seeds."""
    head = ["variant", "seeds", *(f"{title}, {r}" for r in READOUTS for title in MEASURES.values())]
    head += [f"Δ {title}, q" for title in MEASURES.values()] + ["ER, q", *DYNAMICS]
    seeds = {r["seed"] for r in records}
    by_variant: dict[str, dict[int, Record]] = defaultdict(dict)
    for record in [r for r in base if r["seed"] in seeds] + records:
        if "readouts" in record:
            by_variant[record["name"]][record["seed"]] = record
    lines = []
    for variant, runs in by_variant.items():
        rows = {r: {s: run["readouts"][f"{run['method']}-{r}"] for s, run in runs.items()} for r in READOUTS}
        line = [variant, str(len(runs))]
        line += [mean_std([accuracy(row, m) for row in rows[r].values()]) for r in READOUTS for m in MEASURES]
        recipe = {s: run["readouts"]["HamJEPA-q"] for s, run in by_variant["hamjepa"].items() if variant != "hamjepa"}
        shared = runs.keys() & recipe.keys()
        gaps = {m: [accuracy(rows["q"][s], m) - accuracy(recipe[s], m) for s in sorted(shared)] for m in MEASURES}
        line += [mean_std(gap) if gap else "–" for gap in gaps.values()]
        line.append(f"{statistics.mean(row['effective_rank'] for row in rows['q'].values()):.1f}")
        found = [run.get("dynamics", {}) for run in runs.values()]
        lines.append(line + [_dynamics(found, *keys) for keys in DYNAMICS.values()])
    intro = "Each variant changes HamJEPA as its name says. Δ is the paired difference on the same seeds, in points.\n"
    return "\n".join([f"## {name}\n", intro, *_overrides(records), *_table(head, lines), *_failures(records), ""])


def _dynamics(found: list[dict[str, float]], key: str, relative_to: str | None = None) -> str:
    """The mean over seeds of a number of `learned_force`, or of the ratio of two."""
    values = [x[key] / (x[relative_to] if relative_to else 1) for x in found if key in x and x.get(relative_to or key)]
    return f"{statistics.mean(values):.2g}" if values else "–"


def _cost(records: list[Record]) -> list[str]:
    lines = []
    for method in METHODS.values():
        found = [r for r in records if r["method"] == method and "train_seconds" in r and "steps" in r]
        if found:
            minutes = [r["train_seconds"] / 60 for r in found]
            lines.append(f"- {method}: {found[0]['steps']} steps, trained in {mean_std(minutes)} minutes")
    return lines


def _overrides(records: list[Record]) -> list[str]:
    """The settings that were changed for every cell of a table."""
    changed = records[0].get("overrides") or {}
    return [f"Changed in every cell: {', '.join(f'`{k}={v}`' for k, v in changed.items())}.\n"] if changed else []


def _failures(records: list[Record]) -> list[str]:
    return [f"- {r['name']}, seed {r['seed']}: {r['failed']}" for r in records if "failed" in r]


def _table(head: list[str], rows: list[list[str]], note: str = "") -> list[str]:
    """Lines of a markdown table and its note; none without rows."""
    if not rows:
        return []
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return [*lines, "", *([note, ""] if note else [])]
