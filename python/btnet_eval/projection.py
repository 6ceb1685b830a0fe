"""Where embeddings lie: of the same images at several resolutions, drawn by PCA and t-SNE."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from btnet_eval.base import DataError
from btnet_eval.datasets.images import NamedImages
from btnet_eval.plots import embedding_plot
from btnet_eval.report import Cell, Section
from btnet_eval.session import Session, image_sizes
from btnet_eval.verification import cosine_similarities
from btnet_ext import InvalidOption

_MOST_RESOLUTIONS = 8  # that `embedding_plot` can show


def write_projection(
    session: Session, images: NamedImages, resolutions: Sequence[int], *, most: int = 200, seed: int = 0
) -> Path:
    """Draw embeddings of the same images at several resolutions; return the page's path.

    Writes OUT/projection.json, .md, .html, and projection_1.png and .svg for the first model, and so on. The table says
    how similar an image's embedding is to that of the same image at the highest resolution.

    Args:
        session: the models.
        images: of which `most` are used at most, evenly spread over their sorted names.
        resolutions: in pixels, 1 to 8, each once.
        most: at least 1.
        seed: of t-SNE.

    Raises:
        InvalidOption: another number of resolutions or images.
        DataError: fewer than five embeddings can be drawn.
        OSError: from the file system; and what `Embedder` raises.
    """
    if not 1 <= len(set(resolutions)) == len(resolutions) <= _MOST_RESOLUTIONS:
        raise InvalidOption(
            f"resolutions must be 1 to {_MOST_RESOLUTIONS}, each once, not {', '.join(map(str, resolutions))}"
        )
    if most < 1:
        raise InvalidOption(f"most must be at least 1, not {most}")
    everything = images.names()
    places = np.linspace(0, len(everything) - 1, min(most, len(everything))).round().astype(int)
    names = list(image_sizes([everything[place] for place in places], images, session.problems, session.progress))
    descending = sorted(resolutions, reverse=True)
    if len(names) * len(descending) < 5:
        raise DataError(f"{images.where}: {len(names)} images at {len(descending)} resolutions are too few to draw")
    session.note(images, names)
    figures: list[Section] = []
    table: list[list[Cell]] = []
    for number, embedder in enumerate(session.embedders, start=1):
        name, rows = embedder.model.name, embedder.at(images, names, descending)
        figure = embedding_plot(np.concatenate(list(rows.values())), np.repeat(descending, len(names)), seed=seed)
        png = session.draw(f"projection_{number}", figure)
        figures.append(Section(f"Embeddings of {name}", [], [], f"t-SNE from seed {seed}.", png))
        for r in descending:
            similar = cosine_similarities(rows[r], rows[descending[0]])
            table.append([name, r, float(similar.mean()), float(similar.std()), float(similar.min())])
    columns = ["model", "resolution", "mean", "deviation", "lowest"]
    note = f"Cosine similarity with the same image's embedding at {descending[0]} px, of {len(names)} images."
    rows_of_table = [dict(zip(columns, row, strict=True)) for row in table]
    numbers = {"images": len(names), "seed": seed, "similarity": rows_of_table}
    # Rounded: that of an embedding with itself is off by 1e-16.
    shown = [[*row[:2], *(f"{value:.4f}" for value in row[2:])] for row in table]
    sections = [*figures, Section("Similarity", columns, shown, note)]
    return session.report("projection", "Embeddings by resolution", numbers, sections)
