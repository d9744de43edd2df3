from __future__ import annotations

import json

from compute_driver.states import PowerState, TaskState, VmState


def test_states_are_novas_words() -> None:
    assert json.dumps([VmState.ACTIVE, TaskState.POWERING_OFF]) == '["active", "powering-off"]'
    assert f"{TaskState.UPDATING_PASSWORD}" == str(TaskState.UPDATING_PASSWORD) == "updating_password"
    assert "active" in {VmState.ACTIVE}


def test_power_states_are_novas_numbers() -> None:
    said = {int(state): state.word for state in PowerState}
    assert said == {0: "pending", 1: "running", 3: "paused", 4: "shutdown", 6: "crashed", 7: "suspended"}
