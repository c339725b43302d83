"""`POST /predict`: rows in JSON, by rows or by columns, Arrow or Parquet in; what was asked for out."""

from __future__ import annotations

from typing import ClassVar

from starlette.types import Scope

from serving.hot import PredictingRoute, Reply, aside
from serving.media import require_rows, table_named
from serving.problems import BodyError
from serving.replies import fields_of, reply_of
from serving.request import JSON_BEGINS, Request, arrow_is_loaded, read_rows
from serving.tables import form_of


class Predict(PredictingRoute):
    """The route, as an ASGI application."""

    name: ClassVar[str] = "/predict"

    async def reply(self, scope: Scope, body: bytes) -> Reply:
        """The answer in the form of the question, or in the one that is asked for."""
        require_rows(scope)
        # JSON is parsed under the interpreter's lock: a thread would only hold up others
        if form_of(body) is None:
            if (named := table_named(scope)) is not None and body[:1] not in JSON_BEGINS:
                raise BodyError(f"the body is no {named} that can be read: it does not begin as one")
            request = self._read(body)
        else:
            request = await aside(self.is_large(scope, body) or not arrow_is_loaded(), self._read, body)
        fields = fields_of(scope, self._slot.served().answers)
        answer = await self.predicted(scope, body, request, sent=body)
        return Reply(*await reply_of(scope, request, answer, fields))

    def _read(self, body: bytes) -> Request:
        return read_rows(body, self._slot.kinds(), max_rows=self._max_rows, max_bytes=self._max_bytes)
