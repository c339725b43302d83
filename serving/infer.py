"""`POST /v2/models/TASK[/versions/VERSION]/infer`: inference in the Open Inference Protocol (V2).

The request's `id` is echoed. Predictions have ids of their own: in the output `id`, or where that is not asked for in
the answer's parameter `ids`, commas between them. Clients number their requests as they like, and one id twice would be
one prediction in the log. With the parameter `unique_id` true a client says that its id is unique: then predictions are
called by it (`ID`, or `ID-0`, `ID-1`, ... where there are several rows), and the request may be sent again.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from starlette.types import Scope

from registry.bundle import Manifest
from serving.answers import STRANGE
from serving.champion import Served
from serving.encodings import compress, header_of
from serving.hot import PredictingRoute, Reply, aside
from serving.prediction import Answer
from serving.problems import UnknownTaskError
from serving.quoting import shown
from serving.request import Request, check_ids
from serving.signature import output_names
from serving.tensor_rows import outputs_of, rows_of
from serving.tensors import BOOL, InferRequest, Output, TensorError, read_request, write_answer

LENGTH_HEADER = b"inference-header-content-length"
_JSON = [(b"content-type", b"application/json")]


class UnknownVersionError(UnknownTaskError):
    """A version that is not loaded."""


class _Read(NamedTuple):
    asked: InferRequest
    request: Request


class Infer(PredictingRoute):
    """The route, as an ASGI application. `path_params` of the scope may name a version."""

    name: ClassVar[str] = "/v2/infer"
    unpacks: ClassVar[bool] = True

    async def reply(self, scope: Scope, body: bytes) -> Reply:
        """The answer, as JSON or with tensors behind it."""
        version, large = scope.get("path_params", {}).get("version"), self.is_large(scope, body)
        served = None if version is None else self.loaded(version)
        asked, request = await aside(large, self._read, scope, body, served or self._slot.served())
        answer = await self.predicted(scope, body, request, served=served)
        accepted = header_of(scope, b"accept-encoding")
        return await aside(large, lambda: _packed(self._write(asked, request, answer), accepted))

    def loaded(self, version: str) -> Served:
        """A version that is loaded. Raises `UnknownVersionError`."""
        found = self._slot.loaded(version)
        if found is None:
            known = ", ".join(self._slot.versions) or "none"
            raise UnknownVersionError(
                f"task {self._slot.task!r}: version {shown(version)} is not loaded here; loaded: {known}"
            )
        return found

    def _read(self, scope: Scope, body: bytes, served: Served) -> _Read:
        manifest = served.manifest
        asked = read_request(self.unpacked(scope, body), header_of(scope, LENGTH_HEADER), self._max_rows)
        _check_outputs(asked, manifest)
        rows = rows_of(asked.tensors, manifest.data_schema, manifest.task.time)
        return _Read(asked, Request(rows, _own_ids(asked, len(rows))))

    def _write(self, asked: InferRequest, request: Request, answer: Answer) -> Reply:
        served, scores = answer.served, answer.scores
        outputs = {one.name: one for one in outputs_of(answer.ids, scores, served.manifest.target)}
        wanted = asked.outputs or [(name, asked.binary) for name in output_names(served.manifest)]
        if any(name == STRANGE for name, _ in wanted):
            strange = served.unfamiliar.of(request, scores)
            outputs[STRANGE] = Output(STRANGE, BOOL, [len(strange), 1], strange)
        content: dict[str, Any] = {"model_name": self._slot.task, "model_version": answer.served.version}
        if asked.id is not None:
            content["id"] = asked.id
        if parameters := _told(answer, with_ids=all(name != "id" for name, _ in wanted)):
            content["parameters"] = parameters
        body, header = write_answer(content, [(outputs[name], binary) for name, binary in wanted])
        return Reply(body) if header is None else Reply(body, _binary_headers(len(body), header))


def _packed(reply: Reply, accepted: bytes | None) -> Reply:
    """The answer in the encoding that the client asks for; the JSON's length is that of what is packed."""
    if (found := compress(reply.body, accepted)) is None:
        return reply
    body, encoding = found
    headers = [(name, value) for name, value in reply.headers or _JSON if name != b"content-length"]
    return Reply(body, [*headers, (b"content-length", b"%d" % len(body)), (b"content-encoding", encoding)])


def _check_outputs(asked: InferRequest, manifest: Manifest) -> None:
    known = output_names(manifest)
    for name, _ in asked.outputs or ():
        if name not in known:
            raise TensorError(f"outputs: expected some of {', '.join(known)}, got {shown(name)}")


def _own_ids(asked: InferRequest, rows: int) -> list[str] | None:
    if not asked.parameters.get("unique_id"):
        return None
    if not asked.id:
        raise TensorError("the parameter unique_id: expected an id with it, the request has none")
    return check_ids([asked.id] if rows == 1 else [f"{asked.id}-{row}" for row in range(rows)], rows)


def _told(answer: Answer, *, with_ids: bool) -> dict[str, str]:
    told = {"ids": ",".join(answer.ids)} if with_ids else {}
    return told | ({"warnings": "; ".join(answer.warnings)} if answer.warnings else {})


def _binary_headers(size: int, header: int) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/octet-stream"),
        (b"content-length", b"%d" % size),
        (LENGTH_HEADER, b"%d" % header),
    ]
