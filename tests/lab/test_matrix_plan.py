"""Plans and cells: what a plan file may say, all combinations of it, and which of them are scenarios."""

from dataclasses import replace

import pytest

from ioflusher.lab.matrix.cells import Cell, plan_cells
from ioflusher.lab.matrix.plan import MatrixPlan, PlanError, builtin_plans, find_plan, parse_plan
from ioflusher.lab.trials import trial_key
from ioflusher.scenario.file import builtin_scenarios, find_scenario, parse_scenario
from ioflusher.scenario.records import ExpectedTable, Scenario
from ioflusher.scenario.settings import SettingError, setting_of, setting_path, with_settings

SCENARIOS = {name: parse_scenario(text) for name, text in builtin_scenarios().items()}
PLAN = """
name = "mine"
scenarios = ["ext4-on-nbd-throttled", "swap-on-nbd"]
[axes]
kernel = ["6.1", "6.12"]
device.use = ["ext4", "xfs"]
[variants.daemon]
ours = {}
nbdkit = { daemon.command = ["nbdkit", "-U", "{socket}", "file", "{file}"] }
"""


def cells(text: str) -> tuple[Cell, ...]:
    """The cells of a plan that names scenarios of the package."""
    return plan_cells(parse_plan(text), SCENARIOS)


def test_a_plan_as_it_is_read() -> None:
    """Axes come before variants, each value with its label; what is not said has a default."""
    plan = parse_plan(PLAN)
    assert (plan.name, plan.title, plan.runs, plan.only, plan.hardening) == ("mine", "", 3, None, ())
    assert [axis.name for axis in plan.axes] == ["kernel", "device.use", "daemon"]
    assert [[choice.label for choice in axis.choices] for axis in plan.axes] == [
        ["6.1", "6.12"],
        ["ext4", "xfs"],
        ["ours", "nbdkit"],
    ]
    assert plan.axes[1].choices[1].settings == (("device.use", "xfs"),)
    assert plan.axes[2].choices[0].settings == ()
    assert [key for key, _ in plan.axes[2].choices[1].settings] == ["daemon.command"]


@pytest.mark.parametrize("written", ['device.use = ["xfs"]', '"device.use" = ["xfs"]'])
def test_dots_between_tables_and_in_quotes_are_the_same(written: str) -> None:
    """Both are how people write a key."""
    plan = parse_plan(f'name = "p"\nscenarios = ["x"]\n[axes]\n{written}\n')
    assert plan.axes[0].choices[0].settings == (("device.use", "xfs"),)


def test_axes_that_harden() -> None:
    """Known by their keys; others by the plan's word."""
    axes = '"hardening.lock_memory" = [false, true]\n"machine.cpus" = [1, 2]\n'
    text = f'name = "p"\nscenarios = ["x"]\n[axes]\n{axes}'
    assert parse_plan(text).hardening == ("hardening.lock_memory",)
    named = text.replace("[axes]", 'hardening = ["machine.cpus"]\n[axes]')
    assert parse_plan(named).hardening == ("machine.cpus",)
    assert [choice.label for choice in parse_plan(text).axes[0].choices] == ["false", "true"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('name = "mine"', 'name = "My plan"'), "plan: name: expected small letters, digits and hyphens"),
        (('"ext4-on-nbd-throttled", "swap-on-nbd"', ""), "plan: scenarios: expected at least one"),
        (("[axes]", "runs = 0\n[axes]"), "plan: runs: expected a whole number from 1 to 1000, found 0"),
        (('["6.1", "6.12"]', '"6.1"'), "plan: axes.kernel: expected an array of values, found '6.1'"),
        (('["6.1", "6.12"]', "[]"), "plan: axes.kernel: expected an array of values, found an empty array"),
        (('["6.1", "6.12"]', '["6.1", "6.1"]'), "plan: kernel: 6.1 is there twice"),
        (("ours = {}", 'ours = { device.use = "xfs" }'), "plan: device.use is set by two axes"),
        (
            ("[axes]", 'hardening = ["demon"]\n[axes]'),
            "plan: hardening: expected names of axes, found 'demon'",
        ),
        (("[axes]", "[axis]"), "plan: unknown key axis"),
        (("variants.daemon", "variants.kernel"), "plan: two axes are called kernel"),
        (("ours = {}", "ours = 3"), "plan: variants.daemon.ours: expected a table, found 3"),
    ],
)
def test_a_plan_that_is_none(change: tuple[str, str], says: str) -> None:
    """What, expected, found."""
    with pytest.raises(PlanError) as error:
        parse_plan(PLAN.replace(*change))
    assert str(error.value).startswith(says)


def test_all_combinations_in_their_order() -> None:
    """Scenarios change slowest, the last axis fastest; a combination's name is all of it."""
    found = cells(PLAN)
    assert len(found) == 2 * 2 * 2 * 2
    assert [cell.name for cell in found[:3]] == [
        "ext4-on-nbd-throttled, kernel 6.1, device.use ext4, daemon ours",
        "ext4-on-nbd-throttled, kernel 6.1, device.use ext4, daemon nbdkit",
        "ext4-on-nbd-throttled, kernel 6.1, device.use xfs, daemon ours",
    ]
    third = found[2]
    assert (third.kernel, third.label("daemon"), third.label("nothing")) == ("6.1", "ours", None)
    assert third.scenario is not None
    assert third.scenario.device.use == "xfs"
    base = SCENARIOS["ext4-on-nbd-throttled"]
    assert third.scenario.title == f"{base.title}; device.use xfs, daemon ours"
    assert found[1].scenario is not None
    assert found[1].scenario.daemon.command[0] == "nbdkit"
    assert found[4].kernel == "6.12"


def test_combinations_that_are_no_scenario_say_why() -> None:
    """swap-on-nbd touches memory: no file system, and no daemon of others with its locked memory."""
    misfits = [cell for cell in cells(PLAN) if cell.scenario is None]
    assert {cell.scenario_name for cell in misfits} == {"swap-on-nbd"}
    assert len(misfits) == 8
    assert misfits[0].misfit == "workload.kind 'anonymous' does not go with device.use 'ext4'"


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("devise.use", "devise.use: scenarios have no key devise"),
        ("device.used", "device.used: scenarios have no key device.used"),
        ("device", "device: this is a table, not a key"),
        ("kernel.sysctl", "kernel.sysctl: this is a table, not a key"),
        ("device.use.more", "device.use.more: device.use is no table"),
    ],
)
def test_a_key_that_no_scenario_has(key: str, says: str) -> None:
    """That is a mistake in the plan, not a combination that does not fit."""
    with pytest.raises(SettingError) as error:
        cells(f'name = "p"\nscenarios = ["swap-on-nbd"]\n[axes]\n"{key}" = ["x"]\n')
    assert str(error.value) == says


def test_too_many_combinations() -> None:
    """Said with their number, before they are made."""
    axes = "\n".join(f'"kernel.sysctl.a{n}" = {list(range(10))}' for n in range(5))
    with pytest.raises(PlanError, match="100000 combinations, at most 10000"):
        cells(f'name = "p"\nscenarios = ["swap-on-nbd"]\n[axes]\n{axes}\n')


def test_the_keys_of_open_tables_have_dots() -> None:
    """kernel.sysctl and kernel.write: what comes after is one key."""
    assert setting_path("kernel.sysctl.vm.dirty_bytes") == ("kernel", "sysctl", "vm.dirty_bytes")
    base = SCENARIOS["swap-on-nbd"]
    changed = with_settings(base, {"kernel.sysctl.vm.swappiness": 10, "machine.memory": "512M"})
    assert setting_of(changed, "kernel.sysctl.vm.swappiness") == "10"
    assert setting_of(changed, "kernel.sysctl.vm.nothing") is None
    assert changed.machine.memory == 512 << 20
    assert changed.kernel.sysctl["vm.page-cluster"] == base.kernel.sysctl["vm.page-cluster"]
    assert base.kernel.sysctl["vm.swappiness"] == "100", "the scenario itself is as it was"


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_a_scenario_with_nothing_changed_is_itself(scenario: Scenario) -> None:
    """Through the form of a TOML table and back."""
    assert with_settings(scenario, {}) == scenario


def test_what_is_measured_does_not_hang_on_the_story() -> None:
    """Other words for people, the same trial; another key, kernel or accelerator: another one."""
    one = SCENARIOS["swap-on-nbd"]
    told = with_settings(one, {"name": "n", "title": "t", "served": "s", "pressed": "p"})
    told = with_settings(told, {"machine.kernel": "5.8"})
    told = replace(told, expected=(ExpectedTable("6.1", "it is so"),))
    assert trial_key(told, "6.12", "emulated", {}) == trial_key(one, "6.12", "emulated", {})
    others = (
        trial_key(with_settings(one, {"machine.cpus": 2}), "6.12", "emulated", {}),
        trial_key(one, "6.1", "emulated", {}),
        trial_key(one, "6.12", "KVM", {}),
    )
    newer = trial_key(one, "6.12", "emulated", {"nbdkit": "2"})
    assert newer != trial_key(one, "6.12", "emulated", {"nbdkit": "1"}), "a daemon that was changed"
    assert newer == trial_key(one, "6.12", "emulated", {"nbdkit": "2", "QEMU": "9", "Python": "3"})
    assert len({trial_key(one, "6.12", "emulated", {}), *others}) == 4


@pytest.mark.parametrize("name", builtin_plans())
def test_the_plans_of_the_package(name: str) -> None:
    """Each is found by its name, which is its file's, and every combination of it fits."""
    plan: MatrixPlan = find_plan(name)
    assert plan.name == name
    assert plan.title
    found = plan_cells(plan, {scenario: find_scenario(scenario) for scenario in plan.scenarios})
    assert [cell.misfit for cell in found if cell.scenario is None] == []


def test_a_variant_of_the_package_is_the_scenario_of_its_own() -> None:
    """So that a run of either counts for both."""
    plan = find_plan("daemons")
    by_daemon = {cell.label("daemon"): cell.scenario for cell in plan_cells(plan, SCENARIOS)}
    for daemon, name in (
        ("nbdkit", "ext4-on-nbdkit-throttled"),
        ("bindfs", "ext4-on-bindfs-throttled"),
        ("sshfs", "ext4-on-sshfs-throttled"),
        ("fuse-overlayfs", "ext4-on-fuse-overlayfs-throttled"),
        ("tgtd", "ext4-on-tgt-throttled"),
        ("tcmu-runner", "ext4-on-tcmu-throttled"),
    ):
        scenario = by_daemon[daemon]
        assert scenario is not None
        assert trial_key(scenario, "", "", {}) == trial_key(SCENARIOS[name], "", "", {}), daemon


def test_a_plan_that_is_not_there() -> None:
    """The nearest name."""
    with pytest.raises(PlanError, match="no plan 'kernals'") as error:
        find_plan("kernals")
    assert error.value.hint is not None
    assert "did you mean kernels?" in error.value.hint
