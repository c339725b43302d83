"""The rivals of the prequential benchmark, one stream a call: `python -m benchmarks.streams_rivals DATA NAME SEED`.

Needs scikit-learn and river. Each block is predicted by what was learnt of the labels known by then, which come one
block late; then it is learnt from. One thread. Prints a JSON object: by rival its score, the scores by block, how often
it was fitted anew, and CPU-seconds.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from benchmarks.streams_data import StreamData, read, scores

WINDOW, RECENT_BLOCKS = 0.20, 5
EPOCHS, FIRST_EPOCHS = 2, 60
CATEGORIES = 30


class Trees:
    """HistGradientBoosting at its defaults, on codes of categories that the first rows hold."""

    def __init__(self, data: StreamData, seed: int) -> None:
        self.seed, self.regression = seed, data.regression
        texts = [name for name in data.inputs if data.inputs[name].dtype == object]
        known = {name: data.inputs[name].iloc[: data.begin].value_counts().index[:250] for name in texts}
        coded = {name: pd.Series(pd.Categorical(data.inputs[name], known[name]).codes, dtype=float) for name in texts}
        self.x = data.inputs.assign(**{name: values.replace(-1, np.nan) for name, values in coded.items()}).to_numpy(
            float
        )
        self.categorical = [name in texts for name in data.inputs]
        self.y = data.target.to_numpy()
        self.model: Any = None

    def fit(self, rows: slice) -> None:
        """Fit anew."""
        if not self.regression and len(set(self.y[rows])) < 2:
            return
        kind = HistGradientBoostingRegressor if self.regression else HistGradientBoostingClassifier
        self.model = kind(categorical_features=self.categorical, random_state=self.seed).fit(self.x[rows], self.y[rows])

    def predict(self, rows: slice) -> np.ndarray:
        """Classes or numbers."""
        return self.model.predict(self.x[rows])


class Network:
    """scikit-learn's MLP on standardised numbers and one-hot categories, trained on block by block."""

    def __init__(self, data: StreamData, seed: int) -> None:
        first, parts = slice(0, data.begin), []
        self.regression = data.regression
        for values in (data.inputs[name] for name in data.inputs):
            if values.dtype == object:
                common = values.iloc[first].value_counts().index[:CATEGORIES]
                parts += [(values == one).to_numpy(float)[:, None] for one in common]
            else:
                parts.append(values.fillna(values.iloc[first].median()).to_numpy(float)[:, None])
        x = np.concatenate(parts, axis=1)
        self.x = StandardScaler().fit(x[first]).transform(x).clip(-10, 10)
        y = data.target.to_numpy()
        self.centre, self.spread = (y[first].mean(), y[first].std()) if self.regression else (0.0, 1.0)
        self.y = (y - self.centre) / self.spread if self.regression else y
        kind = MLPRegressor if self.regression else MLPClassifier
        self.model = kind(hidden_layer_sizes=(128, 64), learning_rate_init=1e-3, random_state=seed)
        self.more: dict[str, Any] = {} if self.regression else {"classes": np.unique(y)}

    def learn(self, rows: slice, epochs: int) -> None:
        """Some epochs over these rows."""
        for _ in range(epochs):
            self.model.partial_fit(self.x[rows], self.y[rows], **self.more)

    def predict(self, rows: slice) -> np.ndarray:
        """Classes or numbers."""
        said = self.model.predict(self.x[rows])
        return said * self.spread + self.centre if self.regression else said


Play = Callable[[StreamData, int], tuple[Iterator[np.ndarray], Callable[[], int]]]


def known_until(data: StreamData, block: slice) -> int:
    """The labels before this row are there when a block begins: those of the block before it are still to come."""
    return max(data.begin, block.start - data.size)


def trees(window: Callable[[StreamData, int], slice], *, again: bool = True) -> Play:
    """Trees fitted at the beginning, and `again` before every block, on the rows of a window."""

    def play(data: StreamData, seed: int) -> tuple[Iterator[np.ndarray], Callable[[], int]]:
        model, fitted = Trees(data, seed), [0]

        def said() -> Iterator[np.ndarray]:
            model.fit(slice(0, data.begin))
            for block in data.blocks:
                if again and (known := known_until(data, block)) > data.begin:
                    model.fit(window(data, known))
                    fitted[0] += 1
                yield model.predict(block)

        return said(), lambda: fitted[0]

    return play


def on_adwin(data: StreamData, seed: int) -> tuple[Iterator[np.ndarray], Callable[[], int]]:
    """Trees fitted anew on the newest fifth when ADWIN finds that the errors have changed."""
    from river import drift

    model, fitted = Trees(data, seed), [0]

    def said() -> Iterator[np.ndarray]:
        detector, errors, seen = drift.ADWIN(), np.zeros(len(data.target)), data.begin
        model.fit(slice(0, data.begin))
        truth = data.target.to_numpy()
        for block in data.blocks:
            known, rung = known_until(data, block), False
            for error in errors[seen:known]:
                detector.update(error)
                rung = rung or detector.drift_detected
            seen = known
            if rung:
                model.fit(newest_fifth(data, known))
                fitted[0] += 1
            now = model.predict(block)
            wrong = np.abs(truth[block] - now) if data.regression else (truth[block] != now)
            errors[block] = wrong.astype(float)
            yield now

    return said(), lambda: fitted[0]


def network(*, again: bool) -> Play:
    """A network that sees every block twice, or never learns again."""

    def play(data: StreamData, seed: int) -> tuple[Iterator[np.ndarray], Callable[[], int]]:
        model, fitted = Network(data, seed), [0]

        def said() -> Iterator[np.ndarray]:
            model.learn(slice(0, data.begin), FIRST_EPOCHS)
            seen = data.begin
            for block in data.blocks:
                if again and (known := known_until(data, block)) > seen:
                    model.learn(slice(seen, known), EPOCHS)
                    seen, fitted[0] = known, fitted[0] + 1
                yield model.predict(block)

        return said(), lambda: fitted[0]

    return play


def adaptive_forest(data: StreamData, seed: int) -> tuple[Iterator[np.ndarray], Callable[[], int]]:
    """river's adaptive random forest, row by row, with labels as late as everybody's."""
    from river import forest

    model: Any = forest.ARFRegressor(seed=seed) if data.regression else forest.ARFClassifier(seed=seed)
    rows = data.inputs.where(data.inputs.notna(), 0.0).to_dict("records")
    truth = data.target.to_numpy()

    def said() -> Iterator[np.ndarray]:
        seen = 0
        for block in data.blocks:
            for place in range(seen, known := known_until(data, block)):
                model.learn_one(rows[place], truth[place])
            seen = known
            empty = 0.0 if data.regression else ""
            yield np.array([model.predict_one(rows[place]) or empty for place in range(block.start, block.stop)])

    return said(), lambda: 0


def newest_fifth(data: StreamData, known: int) -> slice:
    """The newest rows, a fifth of the stream."""
    return slice(max(0, known - int(WINDOW * len(data.target))), known)


def newest_blocks(data: StreamData, known: int) -> slice:
    """The newest five blocks."""
    return slice(max(0, known - RECENT_BLOCKS * data.size), known)


def everything(data: StreamData, known: int) -> slice:
    """All rows."""
    return slice(0, known)


RIVALS: dict[str, Play] = {
    "trees, static": trees(everything, again=False),
    "MLP, static": network(again=False),
    "MLP, tuned each block": network(again=True),
    "trees each block, newest fifth": trees(newest_fifth),
    "trees each block, 5 blocks": trees(newest_blocks),
    "trees each block, all rows": trees(everything),
    "trees on ADWIN": on_adwin,
    "ARF": adaptive_forest,
}
ALWAYS = [name for name in RIVALS if "each block" in name]


def run(data: StreamData, name: str, seed: int) -> dict[str, object]:
    """One rival on a stream."""
    start = time.process_time()
    blocks, fitted = RIVALS[name](data, seed)
    truth = data.target.to_numpy()
    said = np.empty(len(truth), dtype=float if data.regression else object)
    for block, values in zip(data.blocks, blocks, strict=True):
        said[block] = values
    found = scores(truth, said, data.blocks, regression=data.regression)
    return {**found, "fits": fitted(), "cpu": time.process_time() - start}


def main() -> None:
    """All rivals on one stream."""
    if len(sys.argv) != 4:
        print("streams_rivals: skipped, it is called by benchmarks/streams.py with a folder, a stream and a seed")
        return
    folder, name, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    warnings.filterwarnings("ignore")
    data = read(folder, name)
    with threadpool_limits(1):
        found = {rival: run(data, rival, seed) for rival in RIVALS}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
