"""What belongs together goes to one test process."""

from __future__ import annotations

import pytest

from .groups import group_of


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("tests/contract/suite/test_store.py::test_a[real-xen]", "real-xen"),
        ("tests/contract/suite/test_store.py::test_a[real-xen-2000]", "real-xen"),
        ("tests/contract/suite/test_files.py::test_a[small-oxenstored]", "oxenstored"),
        ("tests/contract/suite/test_files.py::test_a[xenstored]", "xenstored"),
        ("tests/contract/driver/test_core.py::test_a", "real-xen"),
        ("tests/tools/labs/xen/test_lab.py::test_a", "real-xen"),
        ("tests/contract/driver/test_power.py::test_a[fake]", "driver"),
        ("tests/contract/test_life.py::test_a[simulator]", "tests/contract/test_life.py::test_a[simulator]"),
    ],
)
def test_a_test_goes_where_its_environment_is(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group
