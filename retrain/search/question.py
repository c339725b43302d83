"""What a study answers: two searches with the same question on the same rows share one."""

from __future__ import annotations

import hashlib

from registry.bundle import ModelBundle
from registry.task import Constraints, Search, TaskSpec


def fingerprint(task: TaskSpec, data_hash: str, seed: int, prior: ModelBundle | None) -> str:
    """A name for the study of this question on these rows; its budget and its number of workers are not part of it."""
    asked = task.model_dump_json(include={"target", "time", "problem", "metric", "columns", "splits"})
    means = task.search.model_dump_json(include={"strategy", "families", "max_epochs"}) + _asked_beside(task)
    heir = prior.manifest.model_dump_json(include={"lineage", "files"}) if prior is not None else ""
    return hashlib.sha256("\0".join([data_hash, asked, means, str(seed), heir]).encode()).hexdigest()[:16]


def _asked_beside(task: TaskSpec) -> str:
    """What is asked beyond what every task asks: a task without it keeps the name that its study always had."""
    means, constrained = task.search, task.constraints != Constraints()
    beside = {
        "choices": bool(means.choices),
        "objectives": len(means.objectives) > 1,
        "ensemble": constrained,
        "stopping": means.stopping != Search().stopping,
    }
    asked = {name for name, is_asked in beside.items() if is_asked}
    limits = task.constraints.model_dump_json() if constrained else ""
    return means.model_dump_json(include=asked) + limits if asked else ""
