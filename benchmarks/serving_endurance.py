"""Everfit's endpoint for a while: requests, swaps, a challenger in the shadow and feedback; does anything grow or fail?

    python -m benchmarks.serving_endurance [--minutes 2] [--rate 100] [--bundle FOLDER]

Four connections send `--rate` requests a second, every eighth of 32 rows, the others of one, and labels for one
request of nineteen. The champion's alias moves every five seconds. Exits 1 when a request failed, when the store holds
another number of predictions or labels than were acknowledged, or when the memory of worker or keeper grew by more than
a tenth after the first fifth.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # before this folder, where `serving` is another file

import orjson
import psutil
import uvloop

from benchmarks.serving_champion import Home, find_champion, make_home, remember, rows_of
from benchmarks.serving_load import JSON, Load
from benchmarks.serving_process import bind, is_keeper, is_worker, running, two_cores, weigh
from benchmarks.serving_rivals import EVERFIT, Bench, server_of
from benchmarks.serving_rounds import Running
from benchmarks.serving_swap import moving, settle
from registry.database import open_engine
from registry.inference_log import InferenceLog
from registry.moves import CHALLENGER

CONNECTIONS, MANY, EVERY_MANY, EVERY_LABEL = 4, 32, 8, 19
SWAP_SECONDS, PARTS = 5.0, 10
MOST_GROWTH = 1.1


class Look(NamedTuple):
    """The state at one moment: minutes since the beginning, megabytes of worker and keeper, rows acknowledged and
    requests that failed so far, p99 in milliseconds since the last look."""

    minutes: float
    worker: float
    keeper: float
    rows: int
    failed: int
    p99: float


@dataclass
class Tally:
    """What clients saw."""

    rows: int = 0
    labels: int = 0
    failed: int = 0
    errors: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def fail(self, why: str) -> None:
        """Count a failure; the first ten are kept."""
        self.failed += 1
        self.errors += [why] * (len(self.errors) < 10)

    def p99(self) -> float:
        """Of the latencies since the last call, in milliseconds."""
        found, self.latencies = sorted(self.latencies), []
        return found[len(found) * 99 // 100] * 1e3 if found else 0.0


class Client:
    """One connection that sends a request whenever its time has come."""

    def __init__(self, port: int, bodies: Iterator[bytes], labels: Iterator[str], tally: Tally) -> None:
        self._port, self._bodies, self._labels, self._tally = port, bodies, labels, tally

    async def run(self, first: float, every: float, until: float) -> None:
        """Send at `first`, and every so many seconds after it, in the loop's time."""
        loop = asyncio.get_running_loop()
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        for number in itertools.count():
            due = first + number * every
            await asyncio.sleep(max(0.0, due - loop.time()))
            if loop.time() > until:
                break
            try:
                await self._once(number)
            except (OSError, EOFError, ValueError, LookupError) as error:
                self._tally.fail(f"{type(error).__name__}: {error}")
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 24)
        self._writer.close()

    async def _once(self, number: int) -> None:
        began = time.perf_counter()
        answer = await self._ask("/predict", next(self._bodies))
        if answer is None:
            return
        self._tally.latencies.append(time.perf_counter() - began)
        self._tally.rows += len(answer["predictions"])
        if number % EVERY_LABEL == 0:
            told = [{"id": one["id"], "label": next(self._labels)} for one in answer["predictions"]]
            counts = await self._ask("/feedback", orjson.dumps(told))
            self._tally.labels += 0 if counts is None else counts["stored"]

    async def _ask(self, path: str, body: bytes) -> Any:
        """The answer to one request; None, and a failure counted, when it is not a 200."""
        self._writer.writelines(Load(path, (body,), 1, JSON).requests())
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        content = await self._reader.readexactly(int(head.partition(b"content-length: ")[2].split(b"\r\n")[0]))
        if not head.startswith(b"http/1.1 200"):
            self._tally.fail(f"{path}: {content[:200].decode(errors='replace')}")
            return None
        return orjson.loads(content)


async def _live(bench: Bench, endpoint: Running, minutes: float, rate: float, tally: Tally) -> list[Look]:
    loop, target = asyncio.get_running_loop(), bench.bundle.manifest.target
    labels = itertools.cycle(map(str, target.classes) if target.classes else ["0.5"])
    bodies, port = _bodies(bench), endpoint.server.port
    start, until = loop.time(), loop.time() + minutes * 60
    clients = [
        asyncio.create_task(Client(port, bodies, labels, tally).run(start + at / rate, CONNECTIONS / rate, until))
        for at in range(CONNECTIONS)
    ]
    looks = [look(endpoint.process, 0.0, tally)]
    for part in range(1, PARTS + 1):
        await asyncio.sleep(start + part * minutes * 60 / PARTS - loop.time())
        looks.append(look(endpoint.process, part * minutes / PARTS, tally))
        print(_line(looks[-1]), flush=True)
    await asyncio.gather(*clients)
    return looks


def _bodies(bench: Bench) -> Iterator[bytes]:
    rows = itertools.cycle(bench.rows)
    for number in itertools.count(1):
        count = MANY if number % EVERY_MANY == 0 else 1
        yield orjson.dumps([next(rows) for _ in range(count)])


def look(process: psutil.Process, minutes: float, tally: Tally) -> Look:
    """The state now."""
    worker, keeper = weigh(process, is_worker), weigh(process, is_keeper)
    return Look(minutes, worker.rss, keeper.rss, tally.rows, tally.failed, tally.p99())


def _line(one: Look) -> str:
    counts = f"{one.rows:10,} {one.failed:8}"
    return f"{one.minutes:8.1f} {one.worker:10.1f} {one.keeper:10.1f} {counts} {one.p99:8.1f}"


def endure(bench: Bench, minutes: float, rate: float) -> bool:
    """Run it and print what came of it; whether all is as it should be."""
    home, cores, tally = bench.home, two_cores(), Tally()
    bind(cores.client)
    remember(home)
    home.registry().set(home.task, CHALLENGER, home.versions[2])
    server = server_of(bench, EVERFIT)
    with running(server, cores.server) as (process, _):
        endpoint = Running(server, process)
        tally.rows += 1  # the probe's
        settle(endpoint)
        print(f"{'minutes':>8} {'worker MB':>10} {'keeper MB':>10} {'rows':>10} {'failed':>8} {'p99 ms':>8}")
        with moving(home, "champion", SWAP_SECONDS):
            looks = uvloop.run(_live(bench, endpoint, minutes, rate, tally))
        settle(endpoint)
        told = endpoint.ask("/model")
    return _judge(home, tally, looks, told)


def _judge(home: Home, tally: Tally, looks: list[Look], told: dict[str, Any]) -> bool:
    log = InferenceLog(open_engine(home.settings.store), home.task)
    stored, beside = log.counts(), log.counts(role="shadow")
    base, end = looks[PARTS // 5], looks[-1]
    growth = {"worker": end.worker / base.worker, "keeper": end.keeper / base.keeper}
    print(f"predictions in the store {stored.predictions:,} of {tally.rows:,} acknowledged")
    print(f"labels in the store      {stored.labelled:,} of {tally.labels:,} acknowledged")
    print(f"swaps {told['swaps']}, rows of the shadow {beside.predictions:,}, requests failed {tally.failed}")
    print("memory since the first fifth: " + ", ".join(f"{name} {value - 1:+.1%}" for name, value in growth.items()))
    for error in tally.errors:
        print(f"failed: {error}")
    return (
        tally.failed == 0
        and (stored.predictions, stored.labelled) == (tally.rows, tally.labels)
        and max(growth.values()) <= MOST_GROWTH
    )


def main() -> None:
    """Read the options; exit 1 when something grew or failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second")
    parser.add_argument("--bundle", type=Path, help="folder of the champion; searched for there if it is empty")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="everfit-endurance-") as folder:
        scratch = Path(folder)
        bundle = find_champion((options.bundle or scratch / "champion" / "bundle").resolve())
        bench = Bench(bundle, make_home(scratch / "home", bundle), tuple(rows_of(bundle)), scratch)
        raise SystemExit(0 if endure(bench, options.minutes, options.rate) else 1)


if __name__ == "__main__":
    main()
