"""coverage.py: the document is up to date, and covers what clients of XenAPI need."""

from __future__ import annotations

import pytest
import XenAPI

from tools.simulator import coverage, model
from tools.simulator.calls import HANDLERS
from tools.simulator.generic import generic_calls
from tools.simulator.model import generated_names

MODEL = model.load()

_NEEDED = """
pool.get_all session.get_this_host session.login_with_password host.get_API_version_major host.get_API_version_minor
pool.get_master session.local_logout session.logout
host.get_record host.get_uuid pool.get_default_SR pool.set_name_label host.compute_free_memory host.get_all
host.get_all_records host.get_by_name_label host.get_by_uuid host.get_software_version pool.eject pool.join
pool.join_force host.call_plugin
VM.get_VBDs VM.get_all_records_where VM.get_domid VM.get_VIFs VM.get_by_uuid VM.get_record VM.clean_shutdown
VM.get_other_config VM.destroy VM.get_power_state VM.hard_shutdown VM.set_other_config VM.unpause VM.clean_reboot
VM.create VM.get_VCPUs_max VM.get_allowed_VIF_devices VM.get_by_name_label VM.get_resident_on VM.hard_reboot VM.pause
VM.remove_from_blocked_operations VM.resume VM.set_blocked_operations VM.set_name_label VM.start VM.start_on VM.suspend
VM.add_to_xenstore_data VM.remove_from_xenstore_data
VM.pool_migrate VM.assert_can_migrate VM.migrate_send host.migrate_receive VM.query_data_source
VBD.get_VDI VBD.get_device VBD.get_other_config VBD.get_record VBD.plug VBD.create VBD.destroy VBD.unplug
VBD.add_to_other_config VBD.get_currently_attached VBD.get_userdevice VBD.insert
VDI.get_by_uuid VDI.get_uuid VDI.get_record VDI.get_SR VDI.add_to_other_config VDI.get_virtual_size
VDI.set_name_description VDI.set_name_label VDI.create VDI.get_VBDs VDI.clone VDI.copy VDI.destroy
VDI.get_all_records_where VDI.get_other_config VDI.get_physical_utilisation VDI.introduce VDI.remove_from_other_config
VDI.remove_from_sm_config VDI.snapshot VDI.resize
SR.get_VDIs SR.scan SR.get_by_uuid SR.get_record PBD.get_record SR.get_all_records SR.get_type PBD.create
PBD.get_all_records_where PBD.plug PBD.unplug SR.forget SR.get_PBDs SR.introduce
VIF.get_record PIF.get_all_records_where network.get_bridge VIF.create VIF.destroy VIF.get_VM VIF.get_all_records_where
VIF.get_other_config VIF.plug VIF.unplug network.create network.destroy network.get_VIFs network.get_all_records_where
network.get_by_name_label network.get_uuid
task.create task.destroy task.cancel task.get_by_name_label task.get_record
GPU_group.get_all GPU_group.get_by_uuid GPU_group.get_enabled_VGPU_types GPU_group.get_remaining_capacity
GPU_group.get_uuid PGPU.get_all_records_where VGPU.create VGPU_type.get_by_uuid VGPU_type.get_max_heads
VGPU_type.get_model_name VGPU_type.get_uuid
"""
"""Every call that the OpenStack driver for XenServer made in its last release, with its library."""


def test_document_is_up_to_date() -> None:
    written = coverage.DOCUMENT.read_text("utf-8")
    assert written == coverage.document(), "run python -m tools.simulator.coverage"


@pytest.mark.parametrize("name", _NEEDED.split())
def test_needed_calls(name: str) -> None:
    cls, _, call = name.partition(".")
    generated = generated_names(MODEL.classes[cls]) - MODEL.classes[cls].removed
    # Those that only make checks end in xapi's own errors, not in a refusal to do anything.
    assert call in generated or name in HANDLERS


def test_shares() -> None:
    counts = coverage.count(MODEL)
    assert {item.name for item in counts} == set(MODEL.classes)
    for chosen in (counts, [item for item in counts if item.has_objects]):
        fields = sum(item.fields for item in chosen)
        assert sum(len(item.unread) for item in chosen) <= 0.05 * fields
    for item in counts:
        if item.name in ("VM", "VIF", "VBD", "network", "PIF", "VLAN", "task", "event", "VM_guest_metrics", "console"):
            assert len(item.missing) <= 0.15 * item.calls, item


def test_what_only_checks_is_not_counted() -> None:
    assert set(HANDLERS) >= coverage.CHECKS_ONLY
    missing = {name for item in coverage.count(MODEL) for name in item.missing}
    assert missing >= coverage.CHECKS_ONLY
    assert not missing & (set(HANDLERS) - coverage.CHECKS_ONLY)


def test_classes_that_a_fresh_pool_has(session: XenAPI.Session) -> None:
    for name in coverage.PREPARED:
        assert getattr(session.xenapi, name).get_all(), name


def test_every_call_is_answered_in_its_way(session: XenAPI.Session) -> None:
    """No name of the datamodel is unknown, and what is not served says so and nothing else."""
    refused = {name for item in coverage.count(MODEL) for name in item.missing} - coverage.CHECKS_ONLY
    plain = {"string": "", "int": "0", "float": 0.0, "bool": False, "datetime": model.EPOCH, "ref": model.NULL_REF}
    for name in sorted(refused):
        signature = MODEL.signatures[name]
        if not signature.needs_session:
            continue
        arguments = [
            MODEL.enums[item.type.name][0]
            if item.type.kind == "enum"
            else {"set": [], "map": {}, "record": {}, **plain}[item.type.kind]
            for item in signature.parameters
        ]
        with pytest.raises(XenAPI.Failure) as caught:
            session.xenapi_request(name, tuple(arguments))
        assert caught.value.details == ["NOT_IMPLEMENTED", name]
    assert len(refused) > 100
    assert set(MODEL.signatures) <= set(generic_calls(MODEL))
