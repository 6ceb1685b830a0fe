"""Draws docs/template.jpg: the ArcFace five-point template on an aligned portrait, with its coordinates.

Run it as `python docs/make_template.py`, with scikit-image 0.26.0 and matplotlib 3.11.2, which bring the portraits.
"""

import sys
from pathlib import Path

from matplotlib import pyplot as plt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "examples"))

from make_faces import CANONICAL, PORTRAITS, TEMPLATE, align  # noqa: E402  (a script beside this one, not a package)

NAMES = ("left eye", "right eye", "nose", "mouth, left", "mouth, right")


def main() -> None:
    """Draw and save the figure."""
    figure, axes = plt.subplots(figsize=(4.6, 4.2), dpi=110, layout="constrained")
    axes.imshow(align(PORTRAITS["hopper"]), extent=(-0.5, CANONICAL - 0.5, CANONICAL - 0.5, -0.5))
    for name, (x, y) in zip(NAMES, TEMPLATE, strict=True):
        axes.plot(x, y, "o", color="white", markeredgecolor="black", markersize=6)
        axes.annotate(
            f"{name}\n({x:.1f}, {y:.1f})",
            (x, y),
            xytext=(12 * (x > CANONICAL / 2) - 6, 7),
            textcoords="offset points",
            ha="center",
            fontsize=6.5,
            color="white",
            bbox={"boxstyle": "round,pad=0.15", "facecolor": "black", "alpha": 0.6, "linewidth": 0},
        )
    axes.set_xticks(range(0, CANONICAL, 28))
    axes.set_yticks(range(0, CANONICAL, 28))
    axes.set_title("Aligned to 112 x 112; smaller and larger crops in proportion", fontsize=8)
    figure.savefig(HERE / "template.jpg", pil_kwargs={"quality": 85})


if __name__ == "__main__":
    main()
