"""The table of a run: a line for each layer or node, then the totals. It fits 80 columns, and uses more for names."""
import re

from rich import box
from rich.table import Table
from rich.text import Text

COLUMNS = (("layer", "left"), ("output\nc x h x w", "right"), ("dense\nMACs", "right"), ("non-0\nMACs", "right"),
           ("\ncycles", "right"), ("lanes\nbusy %", "right"), ("dens.\nin %", "right"), ("dens.\nout %", "right"),
           ("DRAM\nread", "right"), ("DRAM\nwrite", "right"), ("mis-\nmatch", "right"))


#: Lines that a table of nodes has before the totals.
MOST_LINES = 40
#: Columns that all but the name take.
NUMBERS_WIDTH = 66


def short(number: float) -> str:
    """Three digits and a unit: 1849.7e6 is ``1.85G``, 950 is ``950``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        # What rounds to 1000 of a unit is 1.00 of the next.
        if number >= 0.9995 * size:
            scaled = number / size
            return f"{scaled:.{2 if scaled < 9.995 else 1 if scaled < 99.95 else 0}f}{unit}"
    return f"{number:.0f}"


def percent(ratio: float) -> str:
    return f"{100 * ratio:.1f}"


def _cells(name: str, shape: str, row: dict) -> list:
    wrong = row["mismatches"]
    return [Text(name), shape, short(row["macs"]), short(row["nonzero_macs"]), short(row["cycles"]),
            percent(row["utilisation"]), percent(row["density_in"]), percent(row["density_out"]),
            short(row["dram_read_bytes"]), short(row["dram_write_bytes"]),
            Text(str(wrong), style="bold red" if wrong else "green")]


def node_label(text: str, letters: int) -> str:
    """The name in ``text``, a node as messages name it, ``Conv node '/features/3/conv'``, in up to ``letters`` letters.

    A number says nothing alone: ``Conv node '185'`` is ``Conv 185``. Of a path that is too long, folders that the next
    one repeats (``/blocks/blocks.1/``) and the operator at its end are left out, and then all but its end.
    """
    node = re.fullmatch(r"(\w+) .*?'(.*)'", text)
    operator, name = node.groups() if node else ("", text)
    if node and name.isdecimal():
        name = f"{operator} {name}"
    elif node and len(name) > letters:
        parts = [part for part in name.split("/") if part]
        parts = [part for part, behind in zip(parts, [*parts, ""][1:], strict=True) if not behind.startswith(part)]
        if len(parts) > 1 and re.fullmatch(rf"{operator}(2D)?(_\d+)?", parts[-1]):
            parts.pop()
        name = "/".join(parts) or name
    return name if len(name) <= letters else f"..{name[2 - letters:]}"


def longest(rows: list[tuple[int, int]], most: int) -> list[int]:
    """Places of the ``most`` rows to show, in their order. Of a row's (mismatches, cycles) any mismatch comes first,
    then most cycles."""
    order = sorted(range(len(rows)), key=lambda at: (not rows[at][0], -rows[at][1], at))
    return sorted(order[:most])


def _lines(report, letters):
    """``(name, row)`` of each line before the totals, and how many were left out."""
    if "nodes" not in report:
        return [(row["name"], row) for row in report["layers"]], 0
    nodes = report["nodes"]
    chosen = longest([(node["mismatches"], node["cycles"]) for node in nodes], MOST_LINES)
    return [(node_label(nodes[at]["name"], letters), nodes[at]) for at in chosen], len(nodes) - len(chosen)


def build_table(report: dict, subtotals: dict[str, dict] | None = None, width: int = 80) -> Table:
    """The table of a report (``boards/sim/report.py``): its nodes, if it has them, else its layers.

    Parameters
    ----------
    report : dict
        A report.
    subtotals : dict
        Further lines between the layers and the total: name -> row.
    width : int
        Columns of the terminal, 80 or more.
    """
    lines, left_out = _lines(report, max(width, 80) - NUMBERS_WIDTH)
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False,
                  title=Text(f"{report['network']}, CONFIG={report['config']}"), title_justify="left",
                  caption=f"{left_out} nodes with fewer cycles: report.json, `zeroskip report`" if left_out else None,
                  caption_justify="left")
    for name, justify in COLUMNS:
        table.add_column(name, justify=justify, no_wrap=True)
    for name, row in lines:
        table.add_row(*_cells(name, "x".join(map(str, row["shape"])), row))
    table.add_section()
    for name, row in (subtotals or {}).items():
        table.add_row(*_cells(name, "", row))
    table.add_row(*_cells("total", "", report["total"]), style="bold")
    return table
