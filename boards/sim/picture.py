"""The picture of a run: panels side by side, each with a title."""
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402


def draw_panels(panels: list[tuple], path: Path, *, columns: int, caption: str = "") -> None:
    """Writes a PNG of some arrays.

    Parameters
    ----------
    panels : list of (title, array)
        uint8 ``[H, W, 3]`` is shown as it is; a float ``[H, W]``, 0 to 1, is dark where it is high.
    path : Path
        The file; its folder is made.
    columns : int
        Panels in a row.
    caption : str
        A line below all of them.
    """
    rows = -(-len(panels) // columns)
    height, width = panels[0][1].shape[:2]
    figure, axes = pyplot.subplots(rows, columns, squeeze=False, layout="constrained",
                                   figsize=(12, 12 / columns * rows * height / width + 0.4 * rows + 0.4))
    for axis in axes.flat:
        axis.axis("off")
    for axis, (title, array) in zip(axes.flat, panels, strict=False):
        axis.set_title(title, fontsize=10)
        axis.imshow(array, cmap="gray_r", vmin=0, vmax=None if array.ndim == 3 else 1, interpolation="nearest")
    if caption:
        figure.supxlabel(caption, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
