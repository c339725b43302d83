"""A client of gRPC with the protocol's methods, as generated code would have them. Needs the extra `grpc`."""

from __future__ import annotations

import socket
from typing import Any

import grpc
import pytest

from serving.grpc_messages import MESSAGES
from serving.grpc_methods import METHODS, SERVICE

MAX_BYTES = 100_000
TYPED = {
    "when": ("BYTES", "bytes_contents", b"2024-03-01T10:00:00"),
    "amount": ("FP64", "fp64_contents", 0.5),
    "weight": ("INT32", "int_contents", 2),
    "member": ("BOOL", "bool_contents", True),
    "carrier": ("BYTES", "bytes_contents", b"AA"),
}


class Client:
    """One connection."""

    def __init__(self, port: int, credentials: Any = None, options: Any = None) -> None:
        self.patient = True
        """Whether it waits for a server that is not there."""
        address = f"127.0.0.1:{port}"
        self.channel = (
            grpc.insecure_channel(address, options)
            if credentials is None
            else grpc.secure_channel(address, credentials, options)
        )

    def ask(self, name: str, request: Any = None, *, service: str = SERVICE, **metadata: str) -> Any:
        response = METHODS[f"{service}{name}"].response
        method = self.channel.unary_unary(
            f"{service}{name}",
            request_serializer=None if isinstance(request, bytes) else lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        sent = [(key.replace("_", "-"), value) for key, value in metadata.items()]
        message = METHODS[f"{service}{name}"].request() if request is None else request
        return method(message, metadata=sent, timeout=30, wait_for_ready=self.patient)

    def refused(self, name: str, request: Any = None, **metadata: str) -> Any:
        """The error of a call that is refused."""
        with pytest.raises(grpc.RpcError) as found:
            self.ask(name, request, **metadata)
        return found.value


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def asked(rows: int = 1, **changes: Any) -> Any:
    """A request with typed contents for rows like `ROW`; an input's values by `changes`, None: without it."""
    request = MESSAGES["ModelInferRequest"](model_name="handmade")
    for name, (datatype, contents, value) in TYPED.items():
        values = changes.get(name, [value] * rows)
        if values is not None:
            one = request.inputs.add(name=name, datatype=datatype, shape=[rows, 1])
            getattr(one.contents, contents).extend(values)
    return request
