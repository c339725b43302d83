"""Rows that share a call of the graph: each gets its own scores, from its own version."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Any

import pytest

from registry.bundle import ModelBundle
from registry.scoring import Scorer, Scores
from serving.batching import Batcher
from serving.champion import Served
from tests.serving.conftest import ROW

AMOUNTS = [number - 3.5 for number in range(20)]


class CountingScorer(Scorer):
    """Remembers how many rows each call had."""

    seconds = 0.0

    def run(self, inputs: Any) -> Any:
        time.sleep(self.seconds)
        self.calls = [*getattr(self, "calls", []), len(next(iter(inputs.values())))]
        return super().run(inputs)


def served(bundle: ModelBundle, version: str, scorer: type[CountingScorer] = CountingScorer) -> Served:
    return replace(Served.load(bundle, version, "handmade"), scorer=scorer.load(bundle))


async def ask(batcher: Batcher, model: Served, amount: float) -> float:
    scores = await batcher.score(model, model.reader.values({**ROW, "amount": amount}))
    assert isinstance(scores, Scores)
    assert len(scores) == 1
    return float(scores.scores[0, 1])


def alone(model: Served, amount: float) -> float:
    return float(model.scorer.run(model.reader.one({**ROW, "amount": amount})).scores[0, 1])


def test_rows_of_one_turn_share_calls_and_keep_their_scores(bundles: dict[str, ModelBundle]) -> None:
    model = served(bundles["good"], "1")

    async def together() -> list[float]:
        batcher = Batcher(largest=8)
        return await asyncio.gather(*(ask(batcher, model, amount) for amount in AMOUNTS))

    found = asyncio.run(together())
    assert model.scorer.calls == [8, 8, 4]  # type: ignore[attr-defined]
    assert found == pytest.approx([alone(model, amount) for amount in AMOUNTS], abs=1e-6)


class SlowScorer(CountingScorer):
    seconds = 0.05


async def ask_in_turn(batcher: Batcher, model: Served) -> None:
    """A row, and another some turns of the loop later."""
    first = asyncio.create_task(ask(batcher, model, 0.0))
    for _ in range(5):
        await asyncio.sleep(0)
    await asyncio.gather(first, ask(batcher, model, 1.0))


def test_rows_right_after_a_shared_call_wait_for_as_many_but_not_for_ever(bundles: dict[str, ModelBundle]) -> None:
    model = served(bundles["good"], "1", SlowScorer)

    async def play() -> None:
        batcher = Batcher(largest=8, patience=1.0)
        await asyncio.gather(*(ask(batcher, model, amount) for amount in (0.0, 1.0)))
        await ask_in_turn(batcher, model)
        await ask(batcher, model, 0.0)  # nobody else comes, and no row waits after it
        await ask_in_turn(batcher, model)

    asyncio.run(play())
    assert model.scorer.calls == [2, 2, 1, 1, 1]  # type: ignore[attr-defined]


def test_rows_long_after_a_shared_call_wait_for_nobody(bundles: dict[str, ModelBundle]) -> None:
    model = served(bundles["good"], "1", SlowScorer)

    async def play() -> None:
        batcher = Batcher(largest=8, patience=1.0)
        await asyncio.gather(*(ask(batcher, model, amount) for amount in (0.0, 1.0)))
        await asyncio.sleep(4 * SlowScorer.seconds)
        await ask_in_turn(batcher, model)

    asyncio.run(play())
    assert model.scorer.calls == [2, 1, 1]  # type: ignore[attr-defined]


def test_versions_are_never_mixed(bundles: dict[str, ModelBundle]) -> None:
    models = [served(bundles["good"], "1"), served(bundles["reverse"], "2")]

    async def together() -> list[float]:
        batcher = Batcher(largest=8)
        return await asyncio.gather(
            *(ask(batcher, models[number // 5 % 2], amount) for number, amount in enumerate(AMOUNTS))
        )

    found = asyncio.run(together())
    expected = [alone(models[number // 5 % 2], amount) for number, amount in enumerate(AMOUNTS)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_call_that_fails_fails_for_all_and_then_is_over(bundles: dict[str, ModelBundle]) -> None:
    model = served(bundles["good"], "1")

    async def fail_then_work() -> float:
        batcher = Batcher(largest=8)
        wrong = [1.0]  # too few values
        results = await asyncio.gather(*(batcher.score(model, wrong) for _ in range(3)), return_exceptions=True)
        assert [type(one) for one in results] == [RuntimeError] * 3
        assert all(isinstance(one.__cause__, ValueError) for one in results if isinstance(one, RuntimeError))
        return await ask(batcher, model, 0.5)

    assert asyncio.run(fail_then_work()) == pytest.approx(alone(model, 0.5), abs=1e-6)


def test_a_row_whose_client_is_gone_takes_no_other_with_it(bundles: dict[str, ModelBundle]) -> None:
    model = served(bundles["good"], "1")

    async def cancel_then_work() -> float:
        batcher = Batcher(largest=8)
        leader, follower = (asyncio.create_task(ask(batcher, model, amount)) for amount in (0.0, 1.0))
        asyncio.get_running_loop().call_soon(leader.cancel)
        results = await asyncio.gather(leader, follower, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
        assert results[1] == pytest.approx(alone(model, 1.0), abs=1e-6)
        return await asyncio.wait_for(ask(batcher, model, 0.5), timeout=10)

    assert asyncio.run(cancel_then_work()) == pytest.approx(alone(model, 0.5), abs=1e-6)
