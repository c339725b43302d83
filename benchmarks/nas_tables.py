"""Tables of finished trainings as spaces that strategies search: no network is trained, every answer is known.

NAS-Bench-201 (Dong & Yang 2020), NAS-Bench-Macro (Su et al. 2021), hpobench's multilayer perceptron (Eggensperger et
al. 2021), LCBench (Zimmer et al. 2021, a surrogate's curves) and TaskSet (Metz et al. 2020). Greater is always better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from retrain.families import cell
from retrain.families.base import Candidate
from retrain.families.cell import Cells
from retrain.families.parameters import Option, Parameter, Real, Whole
from retrain.search.experience import Experience
from retrain.search.geometry import Space
from retrain.search.taught import Taught

Curve = npt.NDArray[np.float64]
OPERATIONS = ("none", "skip", "conv1x1", "conv3x3", "avgpool")
AS_OURS = dict(zip(OPERATIONS, cell.OPERATIONS, strict=True))
PROXIES = ("synflow", "naswot", "params_M", "flops_M")


@dataclass(frozen=True)
class Found:
    """What the table says of a candidate: the score that a search sees, the seconds it costs, the final scores."""

    score: float
    seconds: float
    finals: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class TableSpace(Space):
    """A space of one family whose trainings are known."""

    name: str
    described: tuple[Parameter, ...]
    look: Callable[[Candidate], int]
    found: Callable[[int], Found]
    keys: Sequence[str] = ()
    training_free: npt.NDArray[np.float64] | None = None
    encoded: Callable[[Candidate], Sequence[int]] | None = None
    curves: npt.NDArray[np.float64] | None = None
    best: float = float("nan")
    worst: float = float("nan")
    experience: Experience | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """One family."""
        return ("table",)

    def parameters(self, family: str) -> tuple[tuple[str, Parameter], ...]:
        """The dimensions by their names."""
        return tuple((one.name, one) for one in self.described)

    def canonical(self, candidate: Candidate) -> str:
        """The row of the table, or its class of isomorphic ones."""
        row = self.look(candidate)
        return self.keys[row] if len(self.keys) else str(row)

    def proxies(self, candidate: Candidate) -> npt.NDArray[np.float64]:
        """What is known without training."""
        if self.training_free is None:
            return np.empty(0)
        return np.asarray(self.training_free[self.look(candidate)], dtype=np.float64)

    def paths(self, candidate: Candidate) -> npt.NDArray[np.float64]:
        """The paths of a cell."""
        return np.asarray(self.encoded(candidate) if self.encoded else (), dtype=np.float64)

    @cached_property
    def taught(self) -> Taught | None:
        """By studies of other tables, where it was given any."""
        return None if self.experience is None else self.experience.taught(self)

    def train(self, candidate: Candidate) -> Found:
        """The answer."""
        return self.found(self.look(candidate))

    def regret(self, value: float) -> float:
        """0 for the best of the table, 1 for its median."""
        return (self.best - value) / (self.best - self.worst)


def nasbench201(folder: Path) -> TableSpace:
    """Search on CIFAR-10 by validation after 12 epochs; test accuracies on CIFAR-10 and CIFAR-100 after 200."""
    rows = pd.read_parquet(folder / "nasbench201.parquet")
    free = pd.read_parquet(folder / "nasbench201_proxies_cpu.parquet").set_index("arch").loc[rows["arch"]]
    places = {arch: place for place, arch in enumerate(rows["arch"])}
    score = rows["cifar10_val_12ep"].to_numpy(dtype=np.float64)
    seconds = rows["cifar10_train_time_200ep"].to_numpy(dtype=np.float64) * 12 / 200
    finals = rows[["cifar10_test", "cifar100_test"]].to_numpy(dtype=np.float64)
    return TableSpace(
        "nasbench201",
        tuple(Option(edge, OPERATIONS) for edge in cell.EDGES),
        lambda one: places["".join(str(OPERATIONS.index(str(one.choices[edge]))) for edge in cell.EDGES)],
        lambda row: Found(float(score[row]), float(seconds[row]), tuple(finals[row])),
        keys=rows["canonical"].tolist(),
        training_free=free[list(PROXIES)].to_numpy(dtype=np.float64),
        encoded=lambda one: Cells().path_encoding({edge: AS_OURS[str(one.choices[edge])] for edge in cell.EDGES}),
        best=float(finals[:, 0].max()),
        worst=float(np.median(finals[:, 0])),
    )


def nasbench_macro(folder: Path) -> TableSpace:
    """Chains of eight layers, each one of three blocks; the first of three trainings is what a search sees."""
    rows = pd.read_parquet(folder / "nasbench_macro.parquet")
    places = {arch: place for place, arch in enumerate(rows["arch"])}
    seen, mean = rows["test_acc_0"].to_numpy(dtype=np.float64), rows["mean_acc"].to_numpy(dtype=np.float64)
    blocks = ("0", "1", "2")
    return TableSpace(
        "nasbench_macro",
        tuple(Option(f"layer_{layer}", blocks) for layer in range(8)),
        lambda one: places["".join(str(one.choices[f"layer_{layer}"]) for layer in range(8))],
        lambda row: Found(float(seen[row]), 1.0, (float(mean[row]),)),
        training_free=rows[["params", "flops"]].to_numpy(dtype=np.float64),
        best=float(mean.max()),
        worst=float(np.median(mean)),
    )


def hpobench(folder: Path) -> list[TableSpace]:
    """Four sets; the mean validation accuracy of five seeds is what a search sees, and what counts."""
    rows = pd.read_parquet(folder / "hpobench_nn.parquet")
    names = [name for name in rows if name.endswith("_idx")]
    return [_grid(f"hpobench {name}", part.reset_index(drop=True), names) for name, part in rows.groupby("dataset")]


def _grid(name: str, part: pd.DataFrame, names: list[str]) -> TableSpace:
    places = {tuple(row): place for place, row in enumerate(part[names].to_numpy().tolist())}
    ends = part[[f"val_acc_{seed}" for seed in range(5)]].to_numpy(dtype=np.float64).mean(axis=1)
    return TableSpace(
        name,
        tuple(Whole(one, 0, int(part[one].max())) for one in names),
        lambda one: places[tuple(int(one.choices[axis]) for axis in names)],
        lambda row: Found(float(ends[row]), 1.0, (float(ends[row]),)),
        best=float(ends.max()),
        worst=float(np.median(ends)),
    )


def lcbench(folder: Path) -> list[TableSpace]:
    """Seventeen tasks, validation accuracy by epoch, 52 of them."""
    configs = pd.read_parquet(folder / "lcbench_surrogate_configs.parquet").sort_values("config")
    numbers = configs.drop(columns="config").astype(float)
    for one in ("batch_size", "learning_rate", "weight_decay", "max_units"):
        numbers[one] = np.log(numbers[one])
    curves = pd.read_parquet(folder / "lcbench_surrogate_curves.parquet")
    made = []
    for task, part in curves.groupby("task", sort=True):
        known = np.stack(part.sort_values("config")["val_accuracy_curve"].to_list()).astype(np.float64)
        made.append(_cube(f"lcbench {task}", numbers, known))
    return made


def taskset(folder: Path) -> list[TableSpace]:
    """Six tasks, 1,000 settings of an optimizer, minus the validation loss at 51 moments."""
    rows = pd.read_parquet(folder / "taskset_text_rnn_curves.parquet").sort_values(["task", "config"])
    made = []
    for task, part in rows.groupby("task", sort=True):
        numbers = part.drop(columns=["task", "config", "train_loss", "valid_loss", "test_loss"]).astype(float)
        numbers = numbers.apply(lambda column: np.log(column.clip(lower=1e-12)) if (column > 0).all() else column)
        losses = np.stack(part["valid_loss"].to_list()).astype(np.float64)
        worst = np.nanmax(losses[np.isfinite(losses)])
        made.append(_cube(f"taskset {task}", numbers, -np.nan_to_num(losses, nan=worst, posinf=worst)))
    return made


def _cube(name: str, numbers: pd.DataFrame, curves: npt.NDArray[np.float64]) -> TableSpace:
    """Settings (m, d) by their nearest place in a unit cube; curves (m, epochs)."""
    wide = numbers.loc[:, numbers.max() > numbers.min()]
    places = ((wide - wide.min()) / (wide.max() - wide.min())).to_numpy()
    axes = [str(one) for one in wide]
    ends = curves.max(axis=1)

    def look(one: Candidate) -> int:
        place = np.asarray([float(one.choices[axis]) for axis in axes])
        return int(((places - place) ** 2).sum(axis=1).argmin())

    return TableSpace(
        name,
        tuple(Real(axis, 0.0, 1.0) for axis in axes),
        look,
        lambda row: Found(float(ends[row]), float(curves.shape[1]), (float(ends[row]),)),
        curves=curves,
        best=float(ends.max()),
        worst=float(np.median(ends)),
    )
