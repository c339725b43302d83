"""Who is let in by gRPC, how much and how long; TLS, the end, several workers, and doing without it."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.bundle import ModelBundle
from registry.database import open_engine
from registry.errors import InputError
from registry.inference_log import InferenceLog
from registry.settings import Settings
from serving.keys import add_key
from tests.certificates import make_certificate
from tests.serving.conftest import endpoint_of, wait_for
from tests.serving.test_workers import Together

grpc = pytest.importorskip("grpc", reason="the extra `grpc` is not installed")

from serving.grpc_messages import MESSAGES  # noqa: E402
from serving.grpc_tensors import body_of  # noqa: E402
from tests.serving.grpc_client import MAX_BYTES, Client, asked, free_port  # noqa: E402


def test_keys_and_rates(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    port, settings = free_port(), Settings.model_validate({"home": tmp_path})
    predict = add_key(settings.key_file, "predict", ["predict"])
    reader = add_key(settings.key_file, "reader", ["read"])
    slow = add_key(settings.key_file, "slow", ["predict"], rate=0.1)
    with endpoint_of(bundles["good"], tmp_path, grpc_port=port, max_body_bytes=MAX_BYTES):
        client = Client(port)
        assert client.ask("ServerLive").live
        assert client.refused("ServerMetadata").code() is grpc.StatusCode.UNAUTHENTICATED
        big = asked(carrier=[b"A" * MAX_BYTES])
        for key in ("", "Bearer evf_wrong"):
            error = client.refused("ModelInfer", big, authorization=key)
            assert error.code() is grpc.StatusCode.UNAUTHENTICATED, "and not that it is too large"
        assert client.refused("ModelInfer", asked(), x_api_key=reader).code() is grpc.StatusCode.PERMISSION_DENIED
        assert client.ask("ModelInfer", asked(), authorization=f"Bearer {predict}").model_version == "1"
        assert client.ask("ModelInfer", asked(), x_api_key=predict).model_version == "1"
        assert client.ask("ModelInfer", asked(), x_api_key=slow)
        error = client.refused("ModelInfer", asked(), x_api_key=slow)
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert int(dict(error.trailing_metadata())["retry-after"]) >= 1


def test_too_many_at_once_are_told_to_come_again(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    port = free_port()
    with endpoint_of(bundles["good"], tmp_path, grpc_port=port, max_concurrent=1, body_seconds=20) as http:
        client = Client(port)
        with socket.create_connection((http.base_url.host, http.base_url.port)) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n{")
            wait_for(lambda: client.ask("ServerLive").live and crowded(client))
            error = client.refused("ModelInfer", asked())
            assert "EVERFIT_MAX_CONCURRENT" in error.details()
            assert dict(error.trailing_metadata())["retry-after"] == "2"
            assert client.ask("ServerReady").ready
        wait_for(lambda: not crowded(client))


def crowded(client: Client) -> bool:
    try:
        client.ask("ModelInfer", asked())
    except grpc.RpcError as error:
        return bool(error.code() is grpc.StatusCode.UNAVAILABLE)
    return False


def test_a_message_that_does_not_come_is_not_waited_for(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    port, stop = free_port(), threading.Event()

    def nothing() -> Iterator[bytes]:
        stop.wait(20)
        yield from ()

    with endpoint_of(bundles["good"], tmp_path, grpc_port=port, body_seconds=0.3):
        method = Client(port).channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as found:
            method(nothing(), timeout=15, wait_for_ready=True)
        stop.set()
        assert found.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "EVERFIT_BODY_SECONDS" in found.value.details()
        with pytest.raises(grpc.RpcError) as found:
            method(iter(()), timeout=15)
        assert found.value.code() is grpc.StatusCode.INVALID_ARGUMENT


MANY = MAX_BYTES // 3
TINY = {
    "inputs": b"\x0a\x08handmade" + b"\x2a\x00" * MANY,
    "outputs": asked().SerializeToString() + b"\x32\x00" * MANY,
    "numbers": asked(weight=[1] * MANY).SerializeToString(),
    "texts": asked(carrier=[b""] * MANY).SerializeToString(),
}


@pytest.mark.parametrize("name", TINY)
def test_a_message_of_which_much_would_be_made(name: str) -> None:
    """An input may be two bytes, and a number one: the body that HTTP would have is bounded before it is made."""
    message = MESSAGES["ModelInferRequest"].FromString(TINY[name])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match="EVERFIT_MAX_BODY_BYTES"):
            body_of(message, MAX_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_BYTES
    finally:
        tracemalloc.stop()


def test_nothing_stays_of_what_was_refused(
    tmp_path: Path, bundles: dict[str, ModelBundle], caplog: pytest.LogCaptureFixture
) -> None:
    """Also without the collector, which a server that has little to do calls seldom; and no fault is logged."""
    port, kind = free_port(), MESSAGES["ModelInferRequest"]
    wrong = asked(2, carrier=[b"A"] * 4000).SerializeToString()
    with endpoint_of(bundles["good"], tmp_path, grpc_port=port, max_body_bytes=MAX_BYTES):
        client = Client(port)
        assert client.ask("ServerLive").live
        gc.collect()
        gc.disable()
        try:
            for data in (TINY["inputs"], TINY["texts"], wrong):
                client.refused("ModelInfer", data)
            wait_for(lambda: not any(isinstance(one, kind) for one in gc.get_objects()))
        finally:
            gc.enable()
    assert "failed" not in caplog.text


def test_tls_by_the_same_files(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    cert, key = make_certificate(tmp_path / "tls")
    port = free_port()
    with endpoint_of(bundles["good"], tmp_path / "home", grpc_port=port, tls_cert=cert, tls_key=key):
        client = Client(port, grpc.ssl_channel_credentials(cert.read_bytes()))
        assert client.ask("ModelInfer", asked()).model_name == "handmade"
        with pytest.raises(grpc.RpcError):
            Client(port).channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=5)


def test_calls_that_are_inside_are_answered_at_the_end(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """Whatever the endpoint acknowledged is in the log; whoever comes later is refused, not broken."""
    port, ids, codes = free_port(), [], []

    def hammer(client: Client) -> None:
        while True:
            try:
                answer = client.ask("ModelInfer", asked())
            except grpc.RpcError as error:
                codes.append(error.code())
                return
            ids.extend(one.decode() for one in answer.outputs[0].contents.bytes_contents)

    clients = [Client(port) for _ in range(3)]
    threads = [threading.Thread(target=hammer, args=(client,)) for client in clients]
    with endpoint_of(bundles["good"], tmp_path, grpc_port=port, drain_seconds=0.1):
        for thread in threads:
            thread.start()
        wait_for(lambda: len(ids) > 50)
        for client in clients:
            client.patient = False
    for thread in threads:
        thread.join()
    assert codes == [grpc.StatusCode.UNAVAILABLE] * 3
    engine = open_engine(f"sqlite:///{tmp_path}/everfit.db")
    assert sorted(InferenceLog(engine, "handmade").frame(columns=[])["__id__"]) == sorted(ids)
    engine.dispose()


def test_workers_share_the_port(tmp_path: Path, bundles: dict[str, ModelBundle]) -> None:
    """Each connection is one worker's; what they answer is in one log."""
    port = free_port()
    together = Together(tmp_path, bundles["good"], EVERFIT_GRPC_PORT=str(port))
    try:
        pids = set()

        def reached() -> bool:
            client = Client(port, options=[("grpc.use_local_subchannel_pool", 1)])
            client.ask("ServerLive")
            for one in together.workers():
                pids.update(one.pid for seen in one.net_connections() if seen.laddr.port == port and seen.raddr)
            client.channel.close()
            return len(pids) == 2

        wait_for(reached)
    finally:
        together.process.terminate()
        together.process.wait()


def test_a_port_that_is_taken_ends_the_server(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        own = {"EVERFIT_HOME": str(tmp_path), "EVERFIT_PORT": str(free_port())}
        own["EVERFIT_GRPC_PORT"] = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "serving", "handmade"],
            env=os.environ | own,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 3
    assert f"{own['EVERFIT_GRPC_PORT']} cannot be listened on" in done.stderr


def test_without_the_packages_the_extra_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['grpc'] = None; from serving.process import main; sys.exit(main(['handmade']))"
    own = {"EVERFIT_HOME": str(tmp_path), "EVERFIT_PORT": str(free_port()), "EVERFIT_GRPC_PORT": str(free_port())}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "pip install 'everfit[grpc]'" in done.stderr


def test_nobody_else_loads_the_packages(tmp_path: Path) -> None:
    code = "import sys; from serving.process import create_app; from registry.settings import Settings; "
    code += "create_app(Settings(), 'handmade'); print([one for one in sys.modules if one.split('.')[0] == 'grpc'])"
    own = {"EVERFIT_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | own, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr
