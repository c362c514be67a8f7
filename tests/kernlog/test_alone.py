"""What each name tells where nothing else in a stack does: rows that otherwise stand behind others."""

import pytest
from tests.kernlog.alone import CASES, alone
from tests.kernlog.answers import everything

from ioflusher.kernlog.reading.console import task_reports


@pytest.mark.parametrize(("section", "told", "name"), CASES)
def test_a_name_alone_tells_what_it_stands_for(section: str, told: str, name: str) -> None:
    """The task waits for it, has it, or is in such a function."""
    data = alone(section, name)
    answers = everything(data)
    if section == "is":
        assert any(f"1 {told} " in answer["roles"] + " " for answer in answers)
        return
    if section in ("begins", "ends"):
        assert len(task_reports(data)) == int(told)
        return
    if section == "elsewhere":
        assert not any(one.startswith("io of nbd [") for answer in answers for one in answer["gives"])
        return
    end, _, about = told.partition("; ")
    ends = [
        one for answer in answers for one in answer["waits" if section in ("waits", "locks") else "gives"]
    ]
    assert any(one.startswith(f"{end} [") and about in one for one in ends)
