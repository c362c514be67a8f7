"""What the verbs of `ioflusher model` share: which kernel, which halves."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from ioflusher.cli.file_parameters import OutputFile
from ioflusher.cli.lab_scenario import read_scenario_text
from ioflusher.cli.messages import remark

if TYPE_CHECKING:
    from ioflusher.scenario.records import Scenario

FIRST = (5, 6)  # 8d19f1c8e193 "prctl: PR_{G,S}ET_IO_FLUSHER to support controlling memory reclaim"
READ_UP_TO = (7, 3)  # the last version in which the model's rules were looked up
DEFAULT = (6, 12)  # the lab's default kernel

kernel_option = click.option(
    "--kernel",
    metavar="K",
    callback=lambda context, parameter, text: None if text is None else _version(text),
    help="A version of Linux such as 5.8, or a release; default: what SCENARIO needs, else 6.12.",
)


class DiagramFile(OutputFile):
    """A file whose name's end says how a sequence diagram is written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = super().convert(value, param, ctx)
        if path.suffix not in DIAGRAM_SUFFIXES:
            self.fail(
                f"expected a name that ends in {', '.join(DIAGRAM_SUFFIXES)}, found {value!r}", param, ctx
            )
        return path


DIAGRAM_SUFFIXES = (".svg", ".mmd", ".json")
diagram_option = click.option(
    "--diagram",
    metavar="FILE",
    type=DiagramFile(),
    help="Draw the way to the freeze, a lane for each task, device and memory, as .svg, .mmd (Mermaid) or "
    ".json.",
)

seed_option = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of chance."
)


def halves_options(command: Callable[..., None]) -> Callable[..., None]:
    """The options --without and --with: the parameters `without_state` and `with_state`."""
    for name, destination in (("--with", "with_state"), ("--without", "without_state")):
        command = click.option(
            name, destination, is_flag=True, help=f"Play the half {name[2:]} the state alone."
        )(command)
    return command


def chosen_halves(*, without_state: bool, with_state: bool) -> tuple[bool, ...]:
    """Which halves are played: False for the one without the state; both where neither is named."""
    if without_state == with_state:
        return (False, True)
    return (with_state,)


def read_modelled(wanted: str, kernel: tuple[int, int] | None) -> "tuple[Scenario, tuple[int, int]]":
    """A scenario that the model has, and the version of Linux that it is played on.

    Raises:
        ScenarioError: there is none of that name, or its text is none.
        NotModelledError: the model has not what it asks for.
    """
    from ioflusher.model.build import build
    from ioflusher.scenario.file import parse_scenario
    from ioflusher.support.toml import lines_told

    text, origin = read_scenario_text(wanted)
    scenario = parse_scenario(text, origin=origin)
    version = chosen_kernel(kernel, scenario)
    with lines_told(text, origin, scenario.name):
        build(scenario, io_flusher=False, version=version)
    return scenario, version


def chosen_kernel(asked: tuple[int, int] | None, scenario: "Scenario") -> tuple[int, int]:
    """The version of Linux, of which is said if the model was not read in it."""
    wanted = scenario.machine.kernel
    version = asked or (_version(wanted) if wanted else DEFAULT)
    if version > READ_UP_TO:
        known = ".".join(map(str, READ_UP_TO))
        remark(f"the model's rules were read in kernels up to {known}; it takes that for all later ones")
    return version


def _version(text: str) -> tuple[int, int]:
    if text == "newest":
        return READ_UP_TO
    found = re.fullmatch(r"(\d{1,3})\.(\d{1,4})([^\d].*)?", text, re.ASCII)
    if found is None:
        raise click.BadParameter(
            f"expected a version such as 5.8 or 6.12, found {text!r}", param_hint="--kernel"
        )
    version = int(found[1]), int(found[2])
    if version < FIRST:
        raise click.BadParameter(
            f"expected 5.6 or later, which has PR_SET_IO_FLUSHER, found {text!r}", param_hint="--kernel"
        )
    return version
