"""One world model, trained and measured: a cell of the comparison, kept in a folder of its own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from examples.system.files import load_checkpoint, save_atomically, write_atomically
from examples.worlds.environments import ENVIRONMENTS
from examples.worlds.episodes import Data
from examples.worlds.models import WorldModel
from examples.worlds.planning import plan_to_goals
from examples.worlds.prediction import HORIZONS, free_rollout, open_loop, surprise
from examples.worlds.probes import Probe, fit_linear, fit_mlp, r_squared
from examples.worlds.training import train

RESULT, MODEL = "cell.json", "model.pt"


@dataclass(frozen=True)
class Cell:
    """What a world model is made of, and how it is trained."""

    environment: str
    predictor: str
    regularizer: str
    episodes: int
    seed: int
    dim: int = 16
    steps: int = 600
    batch: int = 64
    lr: float = 5e-3

    def folder(self, out: Path) -> Path:
        return out / self.group / f"{self.predictor.replace(' ', '-')}-s{self.seed}"

    @property
    def group(self) -> str:
        """What the predictors are compared within."""
        size = "" if self.dim == Cell.dim else f"-d{self.dim}"
        return f"{self.environment}-{self.regularizer}-{self.episodes}{size}"

    def result(self, out: Path) -> dict[str, Any] | None:
        """The cell's result, if it is finished.

        Raises:
            SystemExit: if it was made with other settings.
        """
        path = self.folder(out) / RESULT
        if not path.is_file():
            return None
        record: dict[str, Any] = json.loads(path.read_text())
        if record["cell"] != asdict(self):
            raise SystemExit(f"{path} was made with {record['cell']}, now {asdict(self)}; choose another --out")
        return record

    def build(self) -> WorldModel:
        """The model before training."""
        torch.manual_seed(self.seed)
        return WorldModel(self.predictor, self.regularizer, dim=self.dim)

    def load(self, out: Path) -> WorldModel:
        """The trained model of a finished cell."""
        model = self.build()
        model.load_state_dict(load_checkpoint(self.folder(out) / MODEL, torch.device("cpu")))
        return model.eval()


def run_cell(cell: Cell, data: Data, out: Path) -> None:
    """Train, measure on the test episodes, and keep the model and its measures."""
    model = cell.build()
    losses = train(model, data.train, steps=cell.steps, batch=cell.batch, lr=cell.lr, seed=cell.seed)
    record = {"cell": asdict(cell), "loss": sum(losses[-20:]) / len(losses[-20:]), **measure(model, data, cell)}
    folder = cell.folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    save_atomically(folder / MODEL, model.state_dict())
    write_atomically(folder / RESULT, json.dumps(record, indent=1))


def measure(model: WorldModel, data: Data, cell: Cell) -> dict[str, Any]:
    """Everything that the report shows, as plain numbers."""
    environment = ENVIRONMENTS[cell.environment]()
    linear, probe = probes(model, data, cell)
    with torch.no_grad():
        states = model.encode(data.test.frames).flatten(0, 1)
    truth = environment.observe(data.test.states[1:]).flatten(0, 1)
    errors = open_loop(model, probe, environment, data.test)
    return {
        "linear R²": r_squared(linear, states, truth).tolist(),
        "MLP R²": r_squared(probe, states, truth).tolist(),
        "open loop": {name: [float(x[k - 1]) for k in HORIZONS] for name, x in vars(errors).items()},
        "free": asdict(free_rollout(model, probe, environment, data)),
        "surprise": surprise(model, data),
        "planning": asdict(plan_to_goals(model, environment, data.test)),
    }


def probes(model: WorldModel, data: Data, cell: Cell) -> tuple[Probe, Probe]:
    """A linear probe and an MLP, fitted on the training episodes."""
    with torch.no_grad():
        states = model.encode(data.train.frames).flatten(0, 1)
    truth = ENVIRONMENTS[cell.environment]().observe(data.train.states[1:]).flatten(0, 1)
    return fit_linear(states, truth), fit_mlp(states, truth, seed=cell.seed)
