"""Hidden columns of the inference log, on both databases' ground: SQLite's bytes, keys, and rows of several kinds."""

from __future__ import annotations

import stat
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from registry.database import open_engine, to_micros
from registry.errors import InputError, TaskError
from registry.inference_log import InferenceLog
from registry.log_batch import Batch
from registry.log_frame import having, lost, sealed
from registry.privacy import HEX, Privacy, Vault, hides_image
from registry.settings import Settings
from registry.task import LogColumns, load
from tests.handmade import make_task
from tests.logged_rows import Prediction, append

NOON = datetime(2024, 5, 1, 12)
SECRET = "a secret of the installation, 1234"
ROW = {"amount": 51_234.75, "carrier": "Zeppelin", "weight": None, "member": True}


def row(number: int, **features: object) -> Prediction:
    at = NOON + timedelta(minutes=number)
    return Prediction(f"r{number}", at, at, "1", "champion", {**ROW, **features}, "no", [0.9, 0.1], [0], 0.3, 0.01)


def log_at(folder: Path, vault: Vault | None = None, **columns: tuple[str, ...]) -> InferenceLog:
    engine = open_engine(f"sqlite:///{folder / 'everfit.db'}")
    return InferenceLog(engine, "loans", Privacy(LogColumns(**columns), vault or Vault(SECRET)))


def stored(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.glob("everfit.db*"))


def test_the_files_bytes_hold_nothing_that_is_hidden_and_readers_see_what_is_encrypted(tmp_path: Path) -> None:
    log = log_at(tmp_path, encrypt=("amount", "weight"), hash=("carrier",), drop=("member",))
    assert append(log, [row(0), row(1, amount=7.125), row(2, carrier="Balloon")]) == 3
    content = stored(tmp_path)
    assert b"r1" in content
    assert not any(plain in content for plain in (b"51234.75", b"7.125", b"Zeppelin", b"Balloon"))
    frame = log.frame()
    assert frame["amount"].tolist() == [51_234.75, 7.125, 51_234.75]
    assert frame["weight"].isna().all()
    assert "member" not in frame
    assert frame["carrier"].map(len).tolist() == [HEX] * 3
    assert frame["carrier"][0] == frame["carrier"][1] != frame["carrier"][2]
    assert lost(frame, ["amount", "carrier", "member"]) == {"carrier": "hashed", "member": "dropped"}
    assert sealed(frame) == {"amount", "weight"}
    assert len(having(frame, ["amount", "weight"])) == 3
    assert having(frame, ["amount", "member"]).empty


def test_a_batch_is_hidden_as_its_rows_are(tmp_path: Path) -> None:
    """Once, whoever hides it first."""
    rules = {"encrypt": ("amount",), "hash": ("carrier",), "drop": ("member",)}
    log, at = log_at(tmp_path, **rules), [to_micros(NOON)] * 2
    batch = Batch(
        "1",
        "champion",
        ["r0", "r1"],
        at,
        at,
        [ROW, {"weight": 1.0}],
        ["no"] * 2,
        [[0.9, 0.1]] * 2,
        [[0], [0]],
        [0.3] * 2,
        [0.0] * 2,
    )
    hidden = batch.hidden("loans", Privacy(LogColumns(**rules), Vault(SECRET)))
    assert log.append_batches([hidden]) == 2
    append(log, [row(2)])
    frame = log.frame()
    assert b"51234.75" not in stored(tmp_path)
    assert frame["carrier"][0] == frame["carrier"][2]
    assert frame["amount"].tolist()[::2] == [51_234.75] * 2
    assert frame["__private__"].tolist() == [LogColumns(**rules), None, LogColumns(**rules)]


def test_rows_of_a_task_that_changed_are_read_side_by_side(tmp_path: Path) -> None:
    append(log_at(tmp_path), [row(0)])
    append(log_at(tmp_path, encrypt=("amount",)), [row(1)])
    append(log_at(tmp_path, drop=("amount",)), [row(2)])
    frame = log_at(tmp_path).frame(columns=["amount", "carrier"])
    assert frame["amount"][:2].tolist() == [51_234.75] * 2
    assert pd.isna(frame["amount"][2])
    assert frame["__private__"].tolist() == [None, LogColumns(encrypt=("amount",)), LogColumns(drop=("amount",))]
    assert having(frame, ["amount"])["__id__"].tolist() == ["r0", "r1"]
    assert len(having(frame, ["carrier"])) == 3


def test_without_the_key_the_column_and_the_setting_are_named(tmp_path: Path) -> None:
    append(log_at(tmp_path, encrypt=("amount",)), [row(0)])
    for vault, why in ((Vault(None, tmp_path / "gone.key"), "its key is not here"), (Vault("x" * 32), "another key")):
        log = log_at(tmp_path, vault)
        with pytest.raises(InputError, match=f"column 'amount' is encrypted.*{why}.*EVERFIT_LOG_KEY"):
            log.frame()
        assert log.frame(columns=["carrier"])["carrier"].tolist() == ["Zeppelin"]
        assert len(log.frame(columns=[])) == 1


def test_a_sealed_value_that_is_moved_to_another_row_does_not_open(tmp_path: Path) -> None:
    vault = Vault(SECRET)
    sealed_text = vault.seal({"amount": 1}, "loans\0r0")
    assert vault.unseal(sealed_text, "loans\0r0", "amount") == {"amount": 1}
    assert vault.seal({"amount": 1}, "loans\0r0") != sealed_text
    with pytest.raises(InputError, match="amount"):
        vault.unseal(sealed_text, "loans\0r1", "amount")


def test_the_keys_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    file, seals = tmp_path / "home" / "log.key", list[str]()
    threads = [threading.Thread(target=lambda: seals.append(Vault(None, file).seal({"a": 1}, "x"))) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert all(Vault(None, file).unseal(one, "x", "a") == {"a": 1} for one in seals)
    assert len(seals) == 8
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in file.parent.iterdir()] == ["log.key"]
    assert Vault(SECRET, file).unseal(seals[0], "x", "a") == {"a": 1}, "the file's key still reads once one is set"
    file.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        Vault(None, file).seal({}, "x")


def test_hashes_are_of_canonical_values_and_of_the_column() -> None:
    vault = Vault(SECRET)
    assert vault.digest("a", 1) == vault.digest("a", 1.0) == vault.digest("a", "1") != vault.digest("b", 1)
    assert [vault.digest("a", value) for value in (None, float("nan"), "")] == [None] * 3
    assert vault.digest("a", 1) != Vault("x" * 32).digest("a", 1)
    assert SECRET not in repr(vault)


def test_with_an_image_go_its_numbers() -> None:
    seen = {"photo": "digest", "photo [1]": 0.5, "photo [2]": None, "amount": 1}
    hidden = Privacy(LogColumns(drop=("photo",)), Vault(SECRET)).hidden(seen, "x")
    assert hidden.features == {"amount": 1}
    assert hidden.private == LogColumns(drop=("photo", "photo [1]", "photo [2]"))


@pytest.mark.parametrize(
    ("log", "why"),
    [
        ({"drop": ["amount"], "hash": ["amount"]}, "'amount' is named twice"),
        ({"encrypt": ["amount", "amount"]}, "'amount' is named twice"),
        ({"drop": ["late"]}, "'late' is the target column"),
        ({"encrypt": ["when"]}, "'when' is the time column"),
        ({"hide": ["amount"]}, "hide"),
        ({"encrypt": ["carrier"]}, "'carrier' is one of monitor.segments"),
    ],
)
def test_what_cannot_be_is_refused(log: dict[str, list[str]], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        make_task(log=log, monitor={"segments": ["carrier"]})


def test_images_are_dropped_or_encrypted_without_files() -> None:
    kept, not_kept = ({"keep_images": keep} for keep in (True, False))
    assert "digest anyway" in str(hides_image(make_task(log={"hash": ["photo"]}), "photo"))
    assert "files in plain" in str(hides_image(make_task(log={"encrypt": ["photo"]}, monitor=kept), "photo"))
    assert hides_image(make_task(log={"encrypt": ["photo"]}, monitor=not_kept), "photo") is None
    assert hides_image(make_task(log={"drop": ["photo"]}), "photo") is None
    assert hides_image(make_task(log={"hash": ["amount"]}), None) is None


def test_an_unknown_key_in_the_file_names_the_nearest(tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text("log: {encrpt: [amount]}\n")
    with pytest.raises(TaskError, match=r"log\.encrpt: unknown key \(did you mean 'encrypt'\?\)"):
        load(path)


def test_a_short_key_is_refused_and_never_shown() -> None:
    with pytest.raises(ValidationError, match="at least 32") as caught:
        Settings.model_validate({"log_key": "short secret"})
    assert "short secret" not in str(caught.value)
