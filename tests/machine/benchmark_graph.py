"""What the storage graph costs, and that it grows with the machine and not faster.

    python tests/machine/benchmark_graph.py

Machines of 2,500, 5,000 and 10,000 nbd devices, each with a file system, a mount and a daemon that lacks the
state and has a log on its own device: all of them are one cycle. Processor time (the machine may be busy) and
the largest memory of processes of their own, medians of five; one run of networkx' strongly connected
components over the same edges stands beside it, for that is what the cycles cannot do without.
"""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 5
SIZES = (2_500, 5_000, 10_000)


def measure(size: int) -> dict[str, float]:
    """Seconds of each part, and MB at the end; in a process of its own."""
    import resource

    import networkx
    from tests.machine.graphs import daemon, machine, mount, nbd, serves, swap_on

    from ioflusher.machine.graph.build import storage_graph
    from ioflusher.machine.process import FileKind, FileUse
    from ioflusher.report.map_text import render_text

    numbers = range(size)
    snapshot = machine(
        tuple(nbd(n) for n in numbers),
        tuple(mount(100 + n, f"43:{n}", f"/m/{n}", f"/dev/nbd{n}") for n in numbers),
        (swap_on(nbd(0)),),
        tuple(daemon(10_000 + 10 * n, "d", FileUse(f"/m/{n}/log", FileKind.LOG, f"43:{n}")) for n in numbers),
    )
    services = tuple(serves(10_000 + 10 * n, f"nbd{n}") for n in numbers)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    graph = storage_graph(snapshot, services)
    made = time.process_time()
    lines = sum(1 for _ in render_text(snapshot, graph))
    written = time.process_time()
    edges = [(edge.source, edge.target) for edge in graph.edges]
    peer = time.process_time()
    components = sum(1 for _ in networkx.strongly_connected_components(networkx.DiGraph(edges)))
    end = time.process_time()
    assert len(graph.cycles) == 1
    assert lines > size
    assert components < len(graph.nodes)
    return {
        "nodes": len(graph.nodes),
        "edges": len(graph.edges),
        "graph": made - begin,
        "text": written - made,
        "networkx": end - peer,
        "memory": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def main() -> None:
    """The table."""
    print("devices  nodes   edges   graph s  text s  networkx s  graph/networkx  MiB more")
    for size in SIZES:
        rounds = []
        for _ in range(ROUNDS):
            command = [sys.executable, str(Path(__file__)), str(size)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
            rounds.append(json.loads(done.stdout))
        middle = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
        ratio = statistics.median(each["graph"] / each["networkx"] for each in rounds)
        print(
            f"{size:7,}  {middle['nodes']:6,.0f}  {middle['edges']:6,.0f}  {middle['graph']:7.2f}  "
            f"{middle['text']:6.2f}  {middle['networkx']:10.2f}  {ratio:14.1f}  {middle['memory']:8.0f}"
        )


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent.parent))
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
