"""Tables on a terminal and elsewhere."""

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

WIDEST = 10_000


def table_width(table: Table, console: Console) -> int:
    """Columns that a table needs in order not to be folded."""
    return Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum


def print_table(table: Table, console: Console) -> None:
    """Print a table; where nobody looks at it on a terminal, nothing is folded or cut."""
    if not console.is_terminal:
        console.width = max(console.width, table_width(table, console))
    console.print(table)
