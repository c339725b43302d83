"""A share of the rows beside the reference's, and the chance of one so much larger."""

from __future__ import annotations

from functools import partial

from scipy.special import ndtr

from monitor.evidence import part_of, score_of
from monitor.measurements import Measurement
from monitor.significance import share_above, share_beyond


def share(
    name: str,
    subject: str | None,
    window: tuple[int, int],
    reference: tuple[int, int],
    note: str = "",
    *,
    effect: float = 1.0,
    doubt: float | None = None,
) -> Measurement:
    """A share of rows beside the reference's, each given as (hits, rows), and the chance of one so much larger, where
    `effect` rows are worth one independent one; given the reference where its `doubt` is told, else that of both being
    drawn anew, which will do for what is judged in one window alone."""
    (hits, rows), (known_hits, known_rows) = window, reference
    return Measurement(
        name=name,
        subject=subject,
        value=hits / rows if rows else None,
        reference=known_hits / known_rows if known_rows else None,
        p_value=_chance(window, reference, effect, doubt) if rows else None,
        rows=rows,
        note=note,
    )


def _chance(window: tuple[int, int], reference: tuple[int, int], effect: float, doubt: float | None = None) -> float:
    """Of so large a share. Rows that are worth less than an independent one are a part of one that is a hit so far: by
    the score of a hit, so that the mean is 0, and by the part (`part_of`)."""
    (hits, rows), (known_hits, known_rows) = window, reference
    known = round(known_hits / effect), round(known_rows / effect)
    above = share_above if doubt is None else partial(share_beyond, doubt=doubt)
    if rows >= effect:
        return above(round(hits / effect), round(rows / effect), *known)
    if (usual := above(1, 1, *known)) == 1:
        return 1.0
    score = score_of(usual) * (hits / rows - usual) / (1 - usual)
    return part_of(float(ndtr(-score)), rows / effect)
