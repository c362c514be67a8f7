"""What container engines need so that a program inside can take the IO_FLUSHER state."""

from enum import Enum


class Engine(Enum):
    """Who starts the container."""

    DOCKER = "docker"
    PODMAN = "podman"
    COMPOSE = "compose"
    KUBERNETES = "kubernetes"


def container_text(engine: Engine, *, lock_memory: bool, realtime: bool) -> str:
    """A fragment for the engine, with comments.

    CAP_SYS_RESOURCE is what the state takes; `lock_memory` adds what mlockall takes, `realtime` what
    SCHED_RR and SCHED_FIFO take.
    """
    capabilities = [
        "SYS_RESOURCE",
        *(["IPC_LOCK"] if lock_memory else []),
        *(["SYS_NICE"] if realtime else []),
    ]
    if engine is Engine.COMPOSE:
        return _compose(capabilities, lock_memory)
    if engine is Engine.KUBERNETES:
        return _kubernetes(capabilities, lock_memory)
    options = [f"--cap-add {capability}" for capability in capabilities]
    if lock_memory:
        options.append("--ulimit memlock=-1:-1")
    program = "docker" if engine is Engine.DOCKER else "sudo podman"
    command = " \\\n  ".join([f"{program} run", *options, "IMAGE ioflusher run -- COMMAND"])
    if engine is Engine.DOCKER:
        outside = "without userns-remap (or with --userns=host)"
    else:
        outside = "without --userns"
    notes = (
        "# Rootless containers cannot take the state: the kernel asks for the capability in the first user",
        f"# namespace. Start the daemon outside, or have root start the container, {outside}.",
        "# The capability is effective for root only: where the image names a USER, add --user 0, and have",
        "# `ioflusher run --user NAME` give root up afterwards.",
    )
    return "\n".join((*notes, command)) + "\n"


def _compose(capabilities: list[str], lock_memory: bool) -> str:
    lines = [
        "services:",
        "  daemon:",
        "    image: IMAGE",
        '    command: ["ioflusher", "run", "--", "COMMAND"]',
        "    # the capability is effective for root only; `ioflusher run --user NAME` gives root up",
        '    user: "0"',
        "    cap_add:",
        *(f"      - {capability}" for capability in capabilities),
    ]
    if lock_memory:
        lines += ["    ulimits:", "      memlock:", "        soft: -1", "        hard: -1"]
    return "\n".join(lines) + "\n"


def _kubernetes(capabilities: list[str], lock_memory: bool) -> str:
    lines = [
        "# The namespace must admit the capability: pod security level privileged; baseline refuses it.",
        "# hostUsers: false puts the pod into a user namespace, where the state cannot be taken.",
    ]
    if lock_memory:
        lines.append("# There is no memlock limit in a pod: IPC_LOCK lifts it.")
    lines += [
        "spec:",
        "  hostUsers: true",
        "  containers:",
        "    - name: daemon",
        "      image: IMAGE",
        '      command: ["ioflusher", "run", "--", "COMMAND"]',
        "      securityContext:",
        "        # the capability must be effective when the state is taken; --user gives root up afterwards",
        "        runAsUser: 0",
        "        capabilities:",
        f"          add: [{', '.join(capabilities)}]",
    ]
    return "\n".join(lines) + "\n"
