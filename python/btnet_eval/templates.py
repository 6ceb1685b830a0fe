"""Several images of one person as one embedding: IJB's templates and the prototypes of a gallery, and their scores."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from btnet_eval.base import Rows
from btnet_eval.verification import row_lengths

_BLOCK = 65536
"""Rows, or pairs of rows, that are worked on at a time."""


@dataclass(frozen=True)
class Templates:
    """One embedding for each template.

    ids: (t,), ascending, each once. rows: (t, D), of length one, in the same order.
    """

    ids: NDArray[Any]
    rows: Rows

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, ids: ArrayLike) -> Rows:
        """(p, D) rows of (p,) ids. Raises ValueError for other arrays, and for an id that is none of these."""
        rows: Rows = self.rows[_places("ids", self.ids, ids)]
        return rows


def aggregate(
    rows: ArrayLike,
    media: ArrayLike,
    templates: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    mirrored: ArrayLike | None = None,
    keep_lengths: bool = False,
) -> Templates:
    """Mean over the images of a medium, then over the media of a template, then brought to length one.

    So the frames of one video count as much as one still image (IJB-C; Maze et al., ICB 2018). Each row is first
    brought to length one, and then multiplied by its weight; the mean of a medium is divided by the number of its
    rows, whatever their weights. What the public programs have as options is here: weights, the face detector's scores,
    are their use_detector_score, mirrored is their use_flip_test, keep_lengths is their use_norm_score. BTNet's
    programs for IJB-C have the first two, arcface_torch's for 1:1 and insightface's for 1:N have all three.

    Args:
        rows: (n, D) real numbers, of any length but zero.
        media: (n,) integers or strings, the medium of each row. Rows with one number are of one medium only where they
            are in one template.
        templates: (n,) integers or strings, the template of each row.
        weights: (n,) finite numbers, not negative; all 1 if they are not given.
        mirrored: (n, D), embeddings of the mirror images, which are added to the rows before all else.
        keep_lengths: do not bring rows to length one, so that longer ones count more.

    Raises:
        ValueError: arrays that do not fit together or are empty, a row of length zero or with values that are not
            finite, a template whose mean is zero.
    """
    views = [check_rows("rows", np.asarray(rows))]
    if mirrored is not None:
        views.append(np.asarray(mirrored))
        if views[1].shape != views[0].shape:
            raise ValueError(f"mirrored must have the shape {views[0].shape} of rows, not {views[1].shape}")
    count = len(views[0])
    lengths = _lengths(views)
    scales = np.ones(count) if keep_lengths else 1 / lengths
    if weights is not None:
        scales = scales * _check_weights(weights, count)
    ids, template_of_row = np.unique(check_ids("templates", templates, count), return_inverse=True)
    _, medium_of_row = np.unique(check_ids("media", media, count), return_inverse=True)
    _, group_of_row, sizes = np.unique(
        template_of_row * (medium_of_row.max() + 1) + medium_of_row, return_inverse=True, return_counts=True
    )
    # Sums over the media do as well as means: the number of media is lost with the length.
    return _summed(views, scales / sizes[group_of_row], ids, template_of_row)


def prototypes(rows: ArrayLike, identities: ArrayLike) -> Templates:
    """One embedding for each person in a gallery: the mean of the rows as they are, then brought to length one.

    As in BTNet's program for QMUL-SurvFace, where longer rows count more. rows, identities and errors: as rows and
    templates in `aggregate`.
    """
    values = np.asarray(rows)
    row_lengths("rows", check_rows("rows", values))
    ids, identity_of_row = np.unique(check_ids("identities", identities, len(values)), return_inverse=True)
    return _summed([values], np.ones(len(values)), ids, identity_of_row)


def pair_scores(
    templates: Templates, first: ArrayLike, second: ArrayLike, others: Templates | None = None
) -> NDArray[np.float64]:
    """(p,) cosine similarities of the templates first[i] and second[i], both (p,) ids; second's are of others if given.

    Raises ValueError for arrays that do not fit together, and for an id that is not in templates, which it names.
    """
    others = templates if others is None else others
    places_a, places_b = _places("first", templates.ids, first), _places("second", others.ids, second)
    if len(places_a) != len(places_b):
        raise ValueError(f"first and second must have one length, not {len(places_a)} and {len(places_b)}")
    scores = np.empty(len(places_a), np.float64)
    for start in range(0, len(scores), _BLOCK):
        block = slice(start, start + _BLOCK)
        a, b = templates.rows[places_a[block]], others.rows[places_b[block]]
        scores[block] = np.einsum("nd,nd->n", a, b, dtype=np.float64)
    return scores


def normalized(name: str, rows: ArrayLike) -> Rows:
    """A float32 copy of (n, D) rows with the length of each row one; name: what errors call it.

    Raises ValueError for no rows, a row of length zero and values that are not finite.
    """
    values = np.asarray(rows)
    lengths = row_lengths(name, check_rows(name, values))
    unit = np.empty(values.shape, np.float32)
    np.divide(values, lengths[:, None], out=unit, casting="same_kind")
    return unit


def distinct(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """The different ones of (n, D) rows, in their order, and (n,) which of them each row is.

    A matrix product sums in an order that depends on a row's place, so that equal rows get scores that differ in the
    last bits: let it have each row once.
    """
    seen: dict[bytes, int] = {}
    # By a digest, since the rows themselves would take as much memory again.
    of_row = [seen.setdefault(hashlib.sha256(row.tobytes()).digest(), len(seen)) for row in rows]
    _, first = np.unique(of_row, return_index=True)
    return rows[first], np.array(of_row)


def check_rows(name: str, rows: NDArray[Any]) -> NDArray[Any]:
    """The rows, or ValueError if they are not (n, D) or there are none; name: what the error calls them."""
    if rows.ndim != 2 or not rows.size:
        raise ValueError(f"{name} must be an (n, D) array with at least one row, not one of shape {rows.shape}")
    return rows


def check_ids(name: str, ids: ArrayLike, count: int) -> NDArray[Any]:
    """(count,) ids as an array, or ValueError for another number of them and for what is no integer or string."""
    found = np.asarray(ids)
    if found.shape != (count,):
        raise ValueError(f"{name} must have one value for each of {count} rows, not the shape {found.shape}")
    if found.dtype.kind not in "iuU":
        raise ValueError(f"{name} must hold integers or strings, not {found.dtype}")
    return found


def _lengths(views: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
    """(n,) lengths of the sums of the views' rows."""
    if len(views) == 1:
        return row_lengths("rows", views[0])
    lengths = np.empty(len(views[0]))
    for start in range(0, len(lengths), _BLOCK):
        block = slice(start, start + _BLOCK)
        lengths[block] = row_lengths(
            f"the sums of rows and mirrored, from {start} on,", views[0][block] + views[1][block]
        )
    return lengths


def _summed(
    views: Sequence[NDArray[Any]], scales: NDArray[np.float64], ids: NDArray[Any], group_of_row: NDArray[np.intp]
) -> Templates:
    """Sums of the views' rows times scales over the groups 0, 1, ... in float64, brought to length one."""
    sums = np.zeros((len(ids), views[0].shape[1]), np.float64)
    order = np.argsort(group_of_row, kind="stable")
    for start in range(0, len(order), _BLOCK):
        block = order[start : start + _BLOCK]
        groups, starts = np.unique(group_of_row[block], return_index=True)
        for rows in views:
            sums[groups] += np.add.reduceat(rows[block] * scales[block, None], starts)
    lengths = np.sqrt(np.einsum("nd,nd->n", sums, sums))
    if not lengths.all():
        raise ValueError(f"the rows of {ids[int(np.argmin(lengths))]} add up to zero, which has no direction")
    return Templates(ids, (sums / lengths[:, None]).astype(np.float32))


def _check_weights(weights: ArrayLike, count: int) -> NDArray[np.float64]:
    found = np.asarray(weights, np.float64)
    if found.shape != (count,):
        raise ValueError(f"weights must have one value for each of {count} rows, not the shape {found.shape}")
    if not (np.isfinite(found) & (found >= 0)).all():
        raise ValueError("weights must be finite and not negative")
    return found


def _places(name: str, ids: NDArray[Any], wanted: ArrayLike) -> NDArray[np.intp]:
    found = np.asarray(wanted)
    if found.ndim != 1 or found.dtype.kind != ids.dtype.kind:
        raise ValueError(f"{name} must be (p,) ids of the type {ids.dtype}, not {found.dtype} of shape {found.shape}")
    places = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
    unknown = ids[places] != found
    if unknown.any():
        raise ValueError(f"{name} names {found[int(np.argmax(unknown))]}, which is no template")
    return places
