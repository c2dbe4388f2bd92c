"""The table of a run: a line for each layer, then the totals. It fits 80 columns."""
from rich import box
from rich.table import Table
from rich.text import Text

COLUMNS = (("layer", "left"), ("output\nc x h x w", "right"), ("dense\nMACs", "right"), ("non-0\nMACs", "right"),
           ("\ncycles", "right"), ("lanes\nbusy %", "right"), ("dens.\nin %", "right"), ("dens.\nout %", "right"),
           ("DRAM\nread", "right"), ("DRAM\nwrite", "right"), ("mis-\nmatch", "right"))


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
    return [name, shape, short(row["macs"]), short(row["nonzero_macs"]), short(row["cycles"]),
            percent(row["utilisation"]), percent(row["density_in"]), percent(row["density_out"]),
            short(row["dram_read_bytes"]), short(row["dram_write_bytes"]),
            Text(str(wrong), style="bold red" if wrong else "green")]


def build_table(report: dict, subtotals: dict[str, dict] | None = None) -> Table:
    """The table of a report (``boards/sim/report.py``).

    Parameters
    ----------
    report : dict
        A report.
    subtotals : dict
        Further lines between the layers and the total: name -> row.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False,
                  title=f"{report['network']}, CONFIG={report['config']}", title_justify="left")
    for name, justify in COLUMNS:
        table.add_column(name, justify=justify, no_wrap=True)
    for row in report["layers"]:
        table.add_row(*_cells(row["name"], "x".join(map(str, row["shape"])), row))
    table.add_section()
    for name, row in (subtotals or {}).items():
        table.add_row(*_cells(name, "", row))
    table.add_row(*_cells("total", "", report["total"]), style="bold")
    return table
