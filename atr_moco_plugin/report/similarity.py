"""The figure of a similarity matrix."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from atr_moco_plugin.report.examples import Matrix
from atr_moco_plugin.report.figures import Panel, panel


def similarity_panel(matrix: Matrix) -> Panel | None:
    """Clips down, captions across, the relevant pairs marked; ``None`` for an empty sample."""
    values = np.array(matrix.values)
    if values.size == 0:
        return None
    relevant = np.array(matrix.relevant)

    def plot(axes: Axes) -> None:
        clips, captions = values.shape
        image = axes.imshow(
            values, cmap="viridis", aspect="auto", interpolation="nearest",
            extent=(0.5, captions + 0.5, clips + 0.5, 0.5),
        )  # fmt: skip
        row, column = relevant.nonzero()
        size = min(170 / max(values.shape), 9)
        axes.plot(
            column + 1, row + 1, linestyle="", marker="s", markersize=size,
            markerfacecolor="none", markeredgecolor="#e5006d", markeredgewidth=0.8,
        )  # fmt: skip
        axes.grid(False)
        axes.set_xlabel("caption")
        axes.set_ylabel("clip")
        bar = axes.figure.colorbar(image, ax=axes, label="similarity", pad=0.02, aspect=30)
        bar.outline.set_visible(False)

    means = f"relevant pairs have a mean of {values[relevant].mean():.3f}"
    if not relevant.all():
        means += f", the others of {values[~relevant].mean():.3f}"
    return panel(
        "Similarity matrix",
        "Brighter is more similar; the right pairs have a pink square and should be the brightest "
        f"of their row and column ({means}).",
        f"Similarities of {values.shape[0]} clips and {values.shape[1]} captions; {means}.",
        plot,
        height=3.6,
    )
