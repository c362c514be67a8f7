"""`ioflusher model`: the mechanism itself, executable."""

import click

from ioflusher.cli.model_check import check_command
from ioflusher.cli.model_compare import compare_command
from ioflusher.cli.model_explore import explore_command
from ioflusher.cli.model_page import page_command
from ioflusher.cli.model_run import run_command
from ioflusher.cli.model_size import size_command
from ioflusher.cli.model_sweep import sweep_command


@click.group()
def model() -> None:
    """Play the mechanism in a model, without a kernel.

    The same scenarios as `ioflusher lab run`, in virtual time: no virtual machine, no privileges, any
    version of Linux from 5.6 on.
    """


for _command in (
    run_command,
    explore_command,
    page_command,
    sweep_command,
    size_command,
    compare_command,
    check_command,
):
    model.add_command(_command)
