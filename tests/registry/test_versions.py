"""Versions and aliases in MLflow: published, promoted, rolled back and fetched, also when something is cut short."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine

from registry.bundle import ModelBundle
from registry.errors import BundleError, NoModelError, RegistryError
from registry.metrics import Problem
from registry.scoring import Scorer
from registry.versions import Promotion, Versions, _knock
from tests.handmade import make_bundle, make_frame

TASK = "handmade"
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> ModelBundle:
    """A sealed bundle with a figure."""
    folder = tmp_path_factory.mktemp("bundles") / "first"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "calibration.png").write_bytes(b"\x89PNG not really")
    return make_bundle(folder)


@pytest.fixture
def three(versions: Versions, bundle: ModelBundle) -> Versions:
    """A registry with versions 1, 2 and 3."""
    assert [versions.publish(bundle) for _ in range(3)] == ["1", "2", "3"]
    return versions


def _aliases(versions: Versions) -> tuple[str | None, ...]:
    return tuple(versions.get(TASK, alias) for alias in ("champion", "previous", "challenger"))


def test_a_registry_without_versions(versions: Versions) -> None:
    """Asking is no error; there is just nothing."""
    assert versions.get(TASK, "champion") is None
    assert versions.list(TASK) == []
    versions.unset(TASK, "challenger")
    for call in (
        lambda: versions.promote(TASK, "1"),
        lambda: versions.rollback(TASK),
        lambda: versions.fetch(TASK, "1"),
        lambda: versions.set(TASK, "champion", "1"),
        lambda: versions.promote(TASK, "latest"),
        lambda: versions.fetch(TASK, "../../1"),
    ):
        with pytest.raises(NoModelError):
            call()


def test_a_published_bundle_is_listed_and_fetched(versions: Versions, bundle: ModelBundle) -> None:
    """With its lineage, tags and metrics; and what is fetched is what was published, file by file."""
    version = versions.publish(bundle, metrics={"auc": 0.75}, tags={"why": "test"})
    versions.set(TASK, "challenger", version)
    (found,) = versions.list(TASK)
    assert (found.version, found.aliases, found.metrics) == ("1", ("challenger",), {"auc": 0.75})
    assert found.tags.items() >= {"why": "test", "everfit.data_hash": "0" * 64, "everfit.code_version": "test"}.items()
    assert versions.fetch(TASK, version).manifest == bundle.manifest


def test_a_version_may_have_another_radius(versions: Versions, bundle: ModelBundle) -> None:
    first, second = (versions.publish(bundle) for _ in range(2))
    assert versions.radius(TASK, first) is None
    versions.set_radius(TASK, first, 0.1 + 0.2)
    assert versions.radius(TASK, first) == 0.1 + 0.2
    assert versions.radius(TASK, second) is None
    with pytest.raises(NoModelError):
        versions.radius(TASK, "9")


def test_a_run_shows_what_the_bundle_holds(versions: Versions, bundle: ModelBundle, home: Path) -> None:
    """Metrics of all models, parameters, the card, the figures; and the model has signature, example, requirements."""
    import mlflow

    versions.publish(bundle, params={"note": "by hand"})
    client = mlflow.MlflowClient(f"sqlite:///{home / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name(TASK).experiment_id])
    assert run.info.status == "FINISHED"
    assert set(run.data.metrics) == {"champion_auc", "boosted_auc"}
    assert run.data.params.items() >= {"problem": "binary", "rows_train": "1000", "note": "by hand"}.items()
    assert run.data.tags["mlflow.note.content"] == "# handmade\n"
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"card.md", "figures"}
    (model,) = (home / "artifacts").rglob("MLmodel")
    info = mlflow.models.Model.load(model.parent)
    assert info.signature.inputs.input_names() == list(bundle.manifest.data_schema.names)
    assert info.signature.outputs.input_names()[:2] == ["prediction", "probability_no"]
    assert info.metadata["columns"]["carrier"] == "categorical"
    assert {line.split("==")[0] for line in (model.parent / "requirements.txt").read_text().split()} == {
        "mlflow", "onnxruntime", "numpy", "pandas",
    }  # fmt: skip


def test_nothing_stored_is_a_pickle(versions: Versions, bundle: ModelBundle, home: Path) -> None:
    """No file of a version bears a pickle's name or header."""
    versions.publish(bundle)
    files = [path for path in (home / "artifacts").rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".joblib", ".pt")]
    assert not [path for path in files if path.read_bytes()[:2] in (b"\x80\x04", b"\x80\x05")]


LOADER = """
import sys
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"registry", "serving", "flows", "monitor", "retrain", "torch", "everfit"}:
            raise ImportError(f"{name} is not installed here")
sys.meta_path.insert(0, Closed())
import mlflow, pandas as pd
url, frame, out = sys.argv[1:]
mlflow.set_tracking_uri(url)
mlflow.set_registry_uri(url)
model = mlflow.pyfunc.load_model("models:/handmade@champion")
model.predict(pd.read_parquet(frame)).to_json(out, orient="split", double_precision=15)
"""


def test_plain_mlflow_predicts_without_everfit(versions: Versions, bundle: ModelBundle, home: Path) -> None:
    """A process that has MLflow and ONNX Runtime alone gives what the bundle's own graph gives."""
    versions.promote(TASK, versions.publish(bundle))
    frame = make_frame(20).drop(columns="late")
    frame.loc[2, ["amount", "carrier"]] = None
    frame.to_parquet(home / "frame.parquet")
    command = [
        sys.executable,
        "-c",
        LOADER,
        f"sqlite:///{home / 'mlflow.db'}",
        home / "frame.parquet",
        home / "out.json",
    ]
    environment = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer = pd.DataFrame(**json.loads((home / "out.json").read_text()))
    scores = Scorer.load(bundle).predict(frame)
    assert answer["prediction"].tolist() == list(scores.prediction)
    np.testing.assert_allclose(answer[["probability_no", "probability_yes"]], scores.probabilities, atol=1e-6)


def _plain_frames(frame: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Frames as users have them: one row's worth of trouble each."""
    count = len(frame)
    return {
        "as it was": frame,
        "integers": frame.assign(amount=range(count)),
        "missing numbers": frame.assign(amount=[None, *range(1, count)]),
        "nullable integers": frame.assign(amount=pd.array([None, *range(1, count)], dtype="Int64")),
        "float32": frame.assign(amount=frame["amount"].astype("float32")),
        "nothing but missing": frame.assign(amount=None, carrier=np.nan),
        "missing booleans": frame.assign(member=pd.Series([True, None] * (count // 2), dtype="object")),
        "nullable booleans": frame.assign(member=pd.array([True, None] * (count // 2), dtype="boolean")),
        "booleans as 0 and 1": frame.assign(member=[0, 1] * (count // 2)),
        "numbers as categories": frame.assign(carrier=range(count)),
        "categorical dtype": frame.assign(carrier=frame["carrier"].astype("category")),
        "missing and unknown categories": frame.assign(carrier=[None, "new"] * (count // 2)),
        "times as text": frame.assign(when=frame["when"].astype(str)),
        "times with zone": frame.assign(when=frame["when"].dt.tz_localize("UTC")),
        "missing times": frame.assign(when=[pd.NaT, *frame["when"][1:]]),
        "other order and columns": frame[frame.columns[::-1]].assign(extra=1),
    }


@pytest.mark.parametrize("problem", ["binary", "multiclass", "regression"])
def test_plain_mlflow_takes_users_frames(versions: Versions, tmp_path: Path, problem: Problem) -> None:
    """Integers, missing values and pandas' own types pass MLflow's signature and give what Everfit gives."""
    import mlflow

    bundle = make_bundle(tmp_path / "bundle", problem=problem)
    versions.publish(bundle)
    (model,) = (tmp_path / "artifacts").rglob("MLmodel")
    loaded, scorer = mlflow.pyfunc.load_model(str(model.parent)), Scorer.load(bundle)
    for name, frame in _plain_frames(make_frame(6, problem=problem).drop(columns="late")).items():
        answer, scores = loaded.predict(frame), scorer.predict(frame)
        assert answer["prediction"].tolist() == list(scores.prediction), name
        np.testing.assert_allclose(answer["uncertainty"], scores.uncertainty, rtol=1e-5, err_msg=name)
    with pytest.raises(ValueError, match="column 'amount' is missing"):
        loaded.predict(make_frame(3).drop(columns="amount"))


def test_promotion_and_rollback_move_the_aliases(three: Versions) -> None:
    """The old champion becomes previous, the challenger is none any more; and back, and forth."""
    three.set(TASK, "challenger", "1")
    assert three.promote(TASK, "1") == Promotion("1", None)
    assert _aliases(three) == ("1", None, None)
    with pytest.raises(NoModelError, match="no previous version"):
        three.rollback(TASK)
    three.set(TASK, "challenger", "2")
    assert three.promote(TASK, "2") == Promotion("2", "1")
    assert _aliases(three) == ("2", "1", None)
    assert three.promote(TASK, "2") == Promotion("2", "1")
    assert three.rollback(TASK) == Promotion("1", "2")
    assert three.rollback(TASK) == Promotion("2", "1")
    three.set(TASK, "challenger", "3")
    assert three.rollback(TASK) == Promotion("1", "2")
    assert _aliases(three) == ("1", "2", "3")
    with pytest.raises(NoModelError, match="version=99"):
        three.promote(TASK, "99")
    assert _aliases(three) == ("1", "2", "3")
    three.unset(TASK, "challenger")
    assert _aliases(three) == ("1", "2", None)


class _CutShortError(Exception):
    """Stands for the death of a process between two steps."""


def _until(last: str) -> Callable[[str], None]:
    def step(name: str) -> None:
        if name == last:
            raise _CutShortError

    return step


KILLED = """
import os, signal, sys
from pathlib import Path
from registry.versions import Versions
home = Path(sys.argv[1])
versions = Versions(f"sqlite:///{home / 'mlflow.db'}", home / "artifacts", home / "cache")
versions.promote("handmade", "3", step=lambda name: name == "previous" and os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_killed_promotion_is_completed(three: Versions, home: Path) -> None:
    """kill -9 between two aliases: the champion still serves, and promoting again finishes."""
    three.promote(TASK, "1")
    three.promote(TASK, "2")
    three.set(TASK, "challenger", "3")
    done = subprocess.run([sys.executable, "-c", KILLED, str(home)], cwd=ROOT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert _aliases(three) == ("2", "2", "3")
    assert three.promote(TASK, "3") == Promotion("3", "2")
    assert _aliases(three) == ("3", "2", None)


def test_a_promotion_cut_short_anywhere_is_completed(three: Versions) -> None:
    """There is always a champion, the old one is never lost, and promoting again finishes, whatever the step."""
    three.promote(TASK, "1")
    three.promote(TASK, "2")
    between = {
        "noted": ("2", "1", "3"),
        "previous": ("2", "2", "3"),
        "champion": ("3", "2", "3"),
        "challenger": ("3", "2", None),
    }
    for last, aliases in between.items():
        three.set(TASK, "challenger", "3")
        with pytest.raises(_CutShortError):
            three.promote(TASK, "3", step=_until(last))
        assert _aliases(three) == aliases
        for _ in range(2):
            assert three.promote(TASK, "3") == Promotion("3", "2")
            assert _aliases(three) == ("3", "2", None)
        three.promote(TASK, "1")
        three.promote(TASK, "2")


def test_what_was_cut_short_is_completed_by_any_later_move(three: Versions) -> None:
    """A rollback after a promotion cut short goes back from it; after a rollback cut short it only completes it."""
    three.promote(TASK, "1")
    three.promote(TASK, "2")
    with pytest.raises(_CutShortError):
        three.promote(TASK, "3", step=_until("previous"))
    assert three.rollback(TASK) == Promotion("2", "3")
    with pytest.raises(_CutShortError):
        three.rollback(TASK, step=_until("previous"))
    assert _aliases(three) == ("2", "2", None)
    assert three.rollback(TASK) == Promotion("3", "2")
    assert _aliases(three) == ("3", "2", None)
    assert three.rollback(TASK) == Promotion("2", "3")


def test_a_cached_bundle_needs_no_registry(three: Versions, home: Path) -> None:
    """What was fetched once is there when the registry is not."""
    three.fetch(TASK, "1")
    away = Versions("http://127.0.0.1:1", home / "artifacts", home / "cache")
    assert away.fetch(TASK, "1").manifest.task.name == TASK
    with pytest.raises(RegistryError):
        away.fetch(TASK, "2")


def test_a_damaged_cache_is_mended(three: Versions, home: Path) -> None:
    """A cached bundle is checked each time, and fetched again when a file was changed or is gone."""
    bundle = three.fetch(TASK, "1")
    bundle.model.write_bytes(b"junk")
    assert three.fetch(TASK, "1").model.read_bytes() != b"junk"
    (bundle.folder / "card.md").unlink()
    assert (three.fetch(TASK, "1").folder / "card.md").is_file()
    assert [path.name for path in (home / "cache" / TASK).iterdir()] == ["1"]


def test_a_corrupt_version_is_refused(three: Versions, home: Path) -> None:
    """A bundle that was changed in the registry is named, and leaves nothing in the cache."""
    for model in (home / "artifacts").rglob("model.onnx"):
        model.write_bytes(b"junk")
    with pytest.raises(BundleError, match=r"model\.onnx"):
        three.fetch(TASK, "1")
    assert list((home / "cache" / TASK).iterdir()) == []


def test_threads_fetch_and_ask_at_once(three: Versions) -> None:
    """Several threads get the same whole bundle, and one answer."""
    with ThreadPoolExecutor(4) as pool:
        fetched = list(pool.map(lambda _: three.fetch(TASK, "2").folder, range(8)))
        asked = list(pool.map(lambda _: three.get(TASK, "champion"), range(8)))
    assert len(set(fetched)) == 1
    assert set(asked) == {None}


@contextmanager
def _answering(status: int, body: bytes = b"", wait: float = 0.0) -> Iterator[str]:
    """A server that answers everything alike."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            time.sleep(wait)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("answer", [(503, b"busy"), (500, b""), (200, b"<html>another service</html>"), (404, b"no")])
def test_a_failing_server_is_a_registry_error(tmp_path: Path, answer: tuple[int, bytes]) -> None:
    """Errors of a server, and a server that is not MLflow, are told at once."""
    with _answering(*answer) as url:
        start = time.monotonic()
        with pytest.raises(RegistryError, match="registry http"):
            Versions(url, tmp_path, tmp_path).get(TASK, "champion")
        assert time.monotonic() - start < 5


def test_a_hanging_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One call waits no longer than it may."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with _answering(200, wait=2) as url, pytest.raises(RegistryError, match="timed out"):
        Versions(url, tmp_path, tmp_path).get(TASK, "champion")


@pytest.mark.parametrize("url", ["http://user:secret@127.0.0.1:1", "postgresql://user:secret@127.0.0.1:1/mlflow"])
def test_an_unreachable_registry_fails_fast_and_hides_the_password(tmp_path: Path, url: str) -> None:
    """Refused connections are not tried for minutes; the next call tries anew."""
    versions = Versions(url, tmp_path, tmp_path)
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(RegistryError, match=r"user:\*\*\*@127") as caught:
            versions.get(TASK, "champion")
        assert time.monotonic() - start < 5
        assert "secret" not in str(caught.value)


def test_a_registry_file_that_is_none(tmp_path: Path) -> None:
    """A file that is no database is a registry that cannot be read; it works once the file is mended."""
    file = tmp_path / "mlflow.db"
    file.write_text("notes" * 1000)
    with pytest.raises(RegistryError, match="not a database"):
        Versions(f"sqlite:///{file}", tmp_path, tmp_path).get(TASK, "champion")


def test_a_full_disk_is_told_on_one_line_and_its_cause_is_kept(
    tmp_path: Path, empty_registry: Path, bundle: ModelBundle, caplog: pytest.LogCaptureFixture
) -> None:
    """SQLite is let grow by no page: it says what it says when the disk is full."""
    file = tmp_path / "mlflow.db"
    shutil.copy(empty_registry, file)

    def stop_growing(connection: sqlite3.Connection, _: object) -> None:
        connection.execute("PRAGMA max_page_count=1")

    sa.event.listen(Engine, "connect", stop_growing)
    try:
        versions = Versions(f"sqlite:///{file}", tmp_path / "artifacts", tmp_path / "cache")
        with pytest.raises(RegistryError) as caught:
            _publish_for_ever(versions, bundle)
    finally:
        sa.event.remove(Engine, "connect", stop_growing)
    said = re.fullmatch(
        rf"registry sqlite:///{file}: database or disk is full: free space on its disk; nothing of this write was kept "
        rf"\(([\d,]+\.\d) MB are free on the disk of {tmp_path}\)",
        str(caught.value),
    )
    assert said is not None, str(caught.value)
    assert float(said[1].replace(",", "")) == pytest.approx(shutil.disk_usage(tmp_path).free / 1e6, rel=0.2)
    assert "[SQL: " in str(caught.value.__cause__)
    assert not [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


def _publish_for_ever(versions: Versions, bundle: ModelBundle) -> None:
    for _ in range(100):
        versions.publish(bundle)


def test_the_words_of_a_server_whose_database_fails_are_without_its_statement(tmp_path: Path) -> None:
    said = (
        "(sqlite3.OperationalError) database or disk is full\n[SQL: INSERT INTO params VALUES (?)]\n[parameters: (1)]"
    )
    body = json.dumps({"error_code": "INTERNAL_ERROR", "message": said}).encode()
    with _answering(400, body) as url, pytest.raises(RegistryError) as caught:
        Versions(url, tmp_path, tmp_path).get(TASK, "champion")
    assert "database or disk is full" in str(caught.value)
    assert "INSERT" not in str(caught.value)


def test_importing_the_module_does_not_import_mlflow() -> None:
    """Serving and the command line do not pay for MLflow before they use it, nor where nobody listens."""
    code = (
        "import sys; from pathlib import Path; from registry.errors import RegistryError\n"
        "from registry.versions import Versions; loaded = 'mlflow' in sys.modules\n"
        "try: Versions('http://127.0.0.1:1', Path('a'), Path('b')).get('any', 'champion')\n"
        "except RegistryError as error: print(loaded, 'mlflow' in sys.modules, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("False False registry http://127.0.0.1:1: "), done.stderr


@pytest.mark.parametrize("proxies", ["", "registry.example"])
@pytest.mark.parametrize("place", ["a..b:1", "[::1", f"{70 * 'a'}:1", "127.0.0.1:99999"])
def test_a_url_that_cannot_be_read_is_a_registry_that_cannot_be_reached(
    place: str, proxies: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", proxies)
    with pytest.raises(RegistryError):
        Versions(f"http://{place}", tmp_path, tmp_path).get(TASK, "champion")


@pytest.mark.parametrize("password", ["7531", "7531/8642", "7531@8642", "7531:8642"])
def test_no_piece_of_a_password_is_told(password: str, tmp_path: Path) -> None:
    with pytest.raises(RegistryError) as caught:
        Versions(f"http://me:{password}@127.0.0.1:1", tmp_path, tmp_path).get(TASK, "champion")
    said = str(caught.value).replace("me:***@127.0.0.1:1", "")
    assert not any(piece in said for piece in re.split(r"[/@:]", password)), said


def test_behind_a_proxy_only_the_proxy_knows_who_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for url, said in {"http://127.0.0.1:1": "refused", "http://127.0.0.1:x": "no URL of a server"}.items():
        with pytest.raises(OSError, match=said):
            _knock(url)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:2")
    _knock("http://127.0.0.1:1")


def test_a_version_whose_files_are_let_go_still_tells_what_it_was(three: Versions, tmp_path: Path) -> None:
    three.promote(TASK, "3")
    with pytest.raises(RegistryError, match="version 3 of task 'handmade' bears an alias"):
        three.thin(TASK, "3")
    known = three.fetch(TASK, "2").manifest
    three.thin(TASK, "2")
    three.thin(TASK, "2")  # as after a kill
    assert three.manifest(TASK, "2") == known
    assert three.manifest(TASK, "1") == three.fetch(TASK, "1").manifest
    for call in (three.fetch, three.promote, lambda task, version: three.set(task, "challenger", version)):
        with pytest.raises(NoModelError, match="the files of version 2 of task 'handmade' were let go"):
            call(TASK, "2")
    assert [one.version for one in three.list(TASK)] == ["1", "2", "3"]
    left = [path.name for path in tmp_path.rglob("*") if path.is_file() and path.name in ("bundle.json", "model.onnx")]
    assert left.count("bundle.json") > left.count("model.onnx")


def test_files_that_a_kill_left_are_found_and_deleted(three: Versions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the first file and the last one the version answers no more, and says why."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository as Store

    delete, gone = Store.delete_artifacts, list[str]()

    def killed(self: Store, artifact_path: str | None = None) -> None:
        if gone:
            raise KeyboardInterrupt
        gone.append(str(artifact_path))
        delete(self, artifact_path)

    monkeypatch.setattr(Store, "delete_artifacts", killed)
    with pytest.raises(KeyboardInterrupt):
        three.thin(TASK, "2")
    monkeypatch.undo()
    assert three.half_gone(TASK) == ["2"]
    with pytest.raises(NoModelError, match="were let go"):
        three.promote(TASK, "2")
    three.thin(TASK, "2")
    assert gone
    assert three.half_gone(TASK) == []
    assert three.manifest(TASK, "2").task.name == TASK
