"""The verb `diagnose` as a user calls it."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli import program
from tests.cli.program import Ended
from tests.kernlog.stacks import DEFINED, log
from tests.machine.graphs import daemon, machine, nbd, talk

from ioflusher.machine.codec import dump_snapshot

LOGS = Path(__file__).parent.parent / "kernlog" / "logs"
RECURSION = str(LOGS / "pos_nbd_xfs_inode_write.txt")
OTHER = str(LOGS / "neg_xfs_reclaim_queue.txt")


def call(*arguments: str) -> Ended:
    """Run the verb."""
    return program.call("diagnose", *arguments)


def test_exit_statuses(tmp_path: Path) -> None:
    """0 no recursion, 1 recursion, 2 unusable; a recursion outweighs what could not be used."""
    missing = str(tmp_path / "missing")
    assert call(OTHER).status == 0
    assert call(RECURSION).status == 1
    assert call(missing).status == 2
    assert call(missing, RECURSION).status == 1
    assert call().status == 2


def test_the_story_is_told() -> None:
    """Who, what, why, what to do, and the stack with its roles."""
    out = call(RECURSION).stdout
    assert out.startswith("RECLAIM RECURSION in 1 of 1 episode; 1 stack read\n")
    for part in (
        "msgr-worker-1 (1026), state D, line 1",
        "its tcp_sendmsg() allocated memory, direct reclaim began to free xfs",
        "remedy start it in the IO_FLUSHER state",
        "needs msgr-worker-1 (1026) itself",
    ):
        assert part in " ".join(out.split())
    assert re.search(r"^ +network +sock_sendmsg\(\)$", out, re.M)
    assert re.search(r"^ +direct reclaim +try_to_free_pages\(\)$", out, re.M)


def test_json_has_the_promised_shape() -> None:
    """The top-level answer, and for each episode what scripts ask for."""
    answer = json.loads(call("--json", RECURSION, OTHER).stdout)
    assert answer["recursion"] is True
    first, second = answer["episodes"]
    assert (first["kind"], first["recursion"], first["confidence"]) == ("inode-recursion", True, "probable")
    assert first["tasks"][0]["comm"] == "msgr-worker-1"
    assert first["daemon"] == "msgr-worker-1"
    assert {"device", "chain", "cycle", "missing", "needs", "remedies", "sentence", "why"} <= set(first)
    assert any(step["role"] == "direct-reclaim" for step in first["chain"])
    assert (second["recursion"], second["input"]) == (False, OTHER)
    assert [entry["recursion"] for entry in answer["inputs"]] == [True, False]


def test_many_logs_may_be_read_at_once() -> None:
    """A process pool changes nothing in the answer."""
    names = [RECURSION, OTHER, RECURSION]
    one, two = (json.loads(call("--json", *jobs, *names).stdout) for jobs in ([], ["--jobs", "2"]))
    assert one == two


CLUSTER = """
import subprocess, sys
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=1, dashboard_address=None, silence_logs=50) as cluster:
        program = [sys.executable, "-m", "ioflusher", "diagnose", "--json", "--dask"]
        program += [cluster.scheduler_address, *sys.argv[1:]]
        done = subprocess.run(program, capture_output=True, timeout=60)
    sys.stdout.buffer.write(done.stdout)
    sys.exit(done.returncode)
"""


def test_a_cluster_may_read_them() -> None:
    """The workers of a local Dask cluster give the same answer."""
    pytest.importorskip("distributed", reason="install the extra dask to run this")
    command = [sys.executable, "-c", CLUSTER, RECURSION, OTHER]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode == 1, done.stderr.decode()
    assert json.loads(done.stdout) == json.loads(call("--json", RECURSION, OTHER).stdout)


def test_a_missing_scheduler_is_told() -> None:
    """The user learns what did not answer, and soon."""
    pytest.importorskip("distributed", reason="install the extra dask to run this")
    program = "import sys, ioflusher.cli.diagnose as verb; from ioflusher.cli.main import main;"
    program += "verb.DASK_TIMEOUT = 0.5; sys.argv[0] = 'ioflusher'; main()"
    command = [sys.executable, "-c", program, "diagnose", "--dask", "tcp://127.0.0.1:1", RECURSION]
    done = subprocess.run(command, capture_output=True, timeout=60, text=True)
    assert done.returncode == 2
    assert "no Dask scheduler answers at tcp://127.0.0.1:1" in done.stderr


def test_a_page_is_written_and_escaped(tmp_path: Path) -> None:
    """Names from a log are text on the page, never markup."""
    log = tmp_path / "log"
    log.write_bytes(Path(RECURSION).read_bytes().replace(b"msgr-worker-1", b"<b>\x1b[2J&x  "))
    page = tmp_path / "page.html"
    call("--html", str(page), "--daemon", "<b>*", str(log))
    text = page.read_text("utf-8")
    assert "&lt;b&gt;" in text
    assert "<b>" not in text
    assert "\x1b" not in text
    assert call("--html", str(tmp_path), RECURSION).status == 2


def test_hostile_names_do_not_reach_the_terminal(tmp_path: Path) -> None:
    """Neither from the log nor from the file's name."""
    log = tmp_path / "a\x1b[31m\u202eb"
    log.write_bytes(b"task:ev\xe2\x80\xaeil\x1b]0;x\x07 state:D stack:0 pid:1\n mutex_lock+0x1/0x2\n")
    result = call(str(log), OTHER)
    assert result.status == 0
    for line in (result.stdout + result.stderr).splitlines():
        assert line.isprintable()


def test_a_functions_row_is_printed() -> None:
    """For whoever asks why a frame was taken for what."""
    assert call("--explain", "shrink_slab.part.40").stdout.startswith(
        "shrink_slab.part.40: shrinker (shrink_slab;"
    )
    assert "not in the tables" in call("--explain", "nonsense").stdout


def test_edges_and_rows_are_printed() -> None:
    """For whoever asks why a log was judged so: edges, their ends, and the rows of each frame."""
    log = str(LOGS / "pos_memcg_writeback_page_lock.txt")
    out = " ".join(call("--explain", log).stdout.split())
    for part in (
        "edge the task of line 25 waits for the lock of a page that somebody reads or writes, which is up to "
        "the task of line 2: it is in alloc_set_pte() (a page fault maps a page that it has locked) "
        "[possible, missing: whether it is the same page]",
        "waits writeback [certain]: a page that is being written",
        "gives page [certain]: it is in alloc_set_pte()",
        "row alloc_set_pte(): holds a page's lock (alloc_set_pte;",
    ):
        assert part in out
    assert " row " not in call(log).stdout
    assert call(log, "--explain").stdout == call("--explain", log).stdout


def test_json_has_edges_and_their_ends() -> None:
    """What a script needs to draw the cycle."""
    answer = json.loads(call("--json", str(LOGS / "pos_loop_swap_zswap_journal.txt")).stdout)
    first = answer["episodes"][0]
    assert first["edges"][0]["thing"] == "transaction"
    assert first["edges"][0]["waiter"] == "loop0 (2090)"
    assert first["cycle"] == ["loop0 (2090)", first["edges"][0]["giver"], "loop0 (2090)"]
    assert any(text.startswith("transaction of ext4 [certain]") for text in first["waits"])
    assert any(text.startswith("io of loop [probable]") for text in first["gives"])


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["--boot", "1", "x"], "--boot belongs to --journal"),
        (["--jobs", "0", "x"], "0 is not in the range"),
        (["--daemon", " ", "x"], "--daemon needs a name"),
        ([], "give a LOG"),
    ],
)
def test_wrong_usage_is_refused(arguments: list[str], why: str) -> None:
    """Options that mean nothing, together or alone, are no silent success."""
    result = call(*arguments)
    assert result.status == 2
    assert why in result.stderr


def test_all_shows_tasks_that_wait_for_work(tmp_path: Path) -> None:
    """They are left out otherwise."""
    log = tmp_path / "log"
    log.write_bytes(b"bash            S    0    10      1 0x0\nCall Trace:\n do_wait+0x1/0x2\n")
    assert "bash" not in call(str(log)).stdout
    assert "bash (10)" in call("--all", str(log)).stdout


def test_a_snapshot_tells_who_serves(tmp_path: Path) -> None:
    """A daemon that no table knows is one where its machine's snapshot says so."""
    text = tmp_path / "log"
    names = DEFINED["SLEEP"] + " balance_dirty_pages ext4_buffered_write_iter vfs_write ksys_pwrite64"
    text.write_bytes(log("store", names))
    recorded = tmp_path / "machine.json"
    processes = (daemon(90, "nbd-client"), daemon(100, "store"))
    device = replace(nbd(0), serving_pid=90)
    recorded.write_bytes(
        dump_snapshot(machine((device,), processes=processes, talks=(talk(90, 100, "/run/socket"),)))
    )
    assert call(str(text)).status == 0
    told = call("--json", "--snapshot", str(recorded), str(text))
    (episode,) = json.loads(told.stdout)["episodes"]
    assert (told.status, episode["daemon"]) == (1, "store")
    assert "store: serves nbd0" in episode["why"]


def test_what_is_no_snapshot_is_said(tmp_path: Path) -> None:
    """Before any log is read."""
    ended = call("--snapshot", OTHER, OTHER)
    assert (ended.status, ended.stdout) == (2, "")
    assert "is not a whole JSON object, as a snapshot is" in ended.stderr
