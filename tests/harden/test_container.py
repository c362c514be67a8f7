"""What containers need, per engine."""

import subprocess
import sys

import pytest

from ioflusher.harden.container import Engine, container_text


@pytest.mark.parametrize("engine", Engine)
def test_the_capability_is_always_there(engine: Engine) -> None:
    """Every engine is told to add SYS_RESOURCE, and nothing more unless asked."""
    text = container_text(engine, lock_memory=False, realtime=False)
    assert "SYS_RESOURCE" in text
    assert "IPC_LOCK" not in text
    assert "SYS_NICE" not in text


@pytest.mark.parametrize("engine", Engine)
def test_more_on_request(engine: Engine) -> None:
    """Locked memory and real-time scheduling bring their capabilities."""
    text = container_text(engine, lock_memory=True, realtime=True)
    assert "IPC_LOCK" in text
    assert "SYS_NICE" in text


@pytest.mark.parametrize("engine", [Engine.DOCKER, Engine.PODMAN])
def test_user_namespaces_are_named(engine: Engine) -> None:
    """Rootless engines cannot give the capability that counts: said, not left to be found out."""
    assert "Rootless" in container_text(engine, lock_memory=False, realtime=False)


def test_the_kubernetes_form_is_yaml_of_the_right_shape() -> None:
    """Indentation nests securityContext below the container (checked without a YAML parser)."""
    lines = container_text(Engine.KUBERNETES, lock_memory=True, realtime=False).splitlines()
    depth = {line.strip().split(":")[0]: len(line) - len(line.lstrip()) for line in lines if ":" in line}
    assert depth["spec"] < depth["containers"] < depth["- name"] < depth["securityContext"]
    assert depth["securityContext"] < depth["capabilities"] < depth["add"]
    assert 'command: ["ioflusher", "run"' in "\n".join(lines)


@pytest.mark.live
def test_the_verb_prints_one_or_all() -> None:
    """`container docker` prints one form, `container` all of them."""
    run = [sys.executable, "-m", "ioflusher", "container"]
    one = subprocess.run([*run, "docker"], capture_output=True, text=True, timeout=60, check=True).stdout
    everything = subprocess.run(run, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "docker run" in one
    assert "podman" not in one
    assert all(f"# {engine.value}\n" in everything for engine in Engine)
