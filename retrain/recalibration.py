"""The remedy `recalibrate`: no weight is trained. The champion, or a former one whose world has come back, is brought
to the level of the newest labelled rows, and its temperature and conformal radius are learnt anew.

A former champion takes its place only when it is better on the newest validation rows by `SURE` of its standard errors:
recurring regimes are answered at no training cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

import numpy as np

from registry.bundle import ModelBundle
from registry.errors import DataError
from registry.metrics import Array
from retrain.calibration import TargetScale
from retrain.export import Member, member_outputs
from retrain.members import read_members, read_scale, trained_until
from retrain.renewal import Renewal, Request

SURE = 1.645
"""Standard errors."""
STEEPEST = 2.0
"""Bounds of a regression's slope: 1 / 2 to 2."""


def recalibrate(asked: Request, former: Mapping[str, ModelBundle] | None = None) -> ModelBundle:
    """The champion recalibrated, or one of the `former` champions (by version) that know its columns and classes.

    Raises `DataError`, see `Renewal`, and when there is nothing that recalibration could change: of a metric that looks
    at the order of the rows alone, with no former champion that is surely better.
    """
    renewal = Renewal(asked)
    own = _Candidate(renewal, renewal.members, renewal.scale)
    chosen, version = own, asked.version
    for name, bundle in (former or {}).items():
        other = _candidate(renewal, bundle)
        if other is not None and other.surely_better(own) and other.value > chosen.value:
            chosen, version = other, name
    if chosen is own and asked.task.metric == "auc":
        raise DataError("recalibration does not change the order of rows, which is all that auc looks at")
    renewal.material = replace(renewal.material, scale=chosen.scale)
    return renewal.seal(chosen.members, {"recalibrated": version})


class _Candidate:
    """A champion, present or former, at the level of the newer rows. Levels networks in place."""

    def __init__(self, renewal: Renewal, members: list[Member], scale: TargetScale | None) -> None:
        self.renewal, self.scale = renewal, scale
        self.members = [renewal.levelled(member) for member in members]
        if scale is not None:
            self.scale = self._rescaled(scale)
        conformed, self.labels = renewal.rows(renewal.new.validation)
        self.answers = self._mixed(member_outputs(self.members, conformed))
        self.value = renewal.value(self.answers, self.labels)

    def surely_better(self, other: _Candidate) -> bool:
        """Paired, on the validation rows."""
        error = self.renewal.metric.paired_error(self.labels, self.answers, other.answers)
        return self.value - other.value > SURE * error

    def _mixed(self, outputs: Array) -> Array:
        weights = np.array([member.weight for member in self.members])
        return np.asarray(np.tensordot(weights, self.renewal.answers(outputs, self.scale), axes=1))

    def _rescaled(self, scale: TargetScale) -> TargetScale:
        """The scale under which predictions of the newer rows are right on average: a line by least squares."""
        conformed, labels = self.renewal.rows(self.renewal.new.train)
        said = self._mixed(member_outputs(self.members, conformed))
        spread = float(said.var())
        slope = float(np.cov(said, labels, bias=True)[0, 1]) / spread if spread > 0 else 1.0
        slope = float(np.clip(slope, 1 / STEEPEST, STEEPEST))
        offset = float((labels - slope * said).mean())
        return TargetScale(centre=offset + slope * scale.centre, spread=slope * scale.spread)


def _candidate(renewal: Renewal, bundle: ModelBundle) -> _Candidate | None:
    """A former champion that answers the same question from the same columns, and has seen none of the rows that judge
    it: one that was rolled back may have been fitted to rows newer than the present champion's, or to the gate's.
    """
    mine, its = renewal.asked.bundle.manifest, bundle.manifest
    if not _older(trained_until(bundle), trained_until(renewal.asked.bundle)):
        return None
    if not _older(its.lineage.known_until, renewal.material.newest(renewal.new.test)):
        return None
    if its.target.classes != mine.target.classes or its.data_schema.names != mine.data_schema.names:
        return None
    scale, members = read_scale(bundle), list(read_members(bundle))
    if not members or (mine.target.problem == "regression" and scale is None):
        return None
    return _Candidate(renewal, members, scale)


def _older(one: datetime | None, other: datetime | None) -> bool:
    return one is not None and other is not None and one <= other
