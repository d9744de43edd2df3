"""Methods of the bus on instances as a whole. Their names and arguments are those of the manager's methods."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from agent_protocol.outcomes import Refused

from ..context import RequestContext
from ..network import interfaces_from_list
from ..volumes import Volume
from .answers import (
    Endpoint,
    a_flag,
    a_list,
    a_password_or_none,
    a_string,
    a_string_or_none,
    answered,
    files,
    seconds_or_none,
    string_map,
    strings,
)


class InstanceEndpoint(Endpoint):
    """Life, power, images and places of instances."""

    @answered
    def build_and_run_instance(
        self,
        context: RequestContext,
        *,
        display_name: str,
        memory_mb: int,
        vcpus: int,
        root_gb: int,
        image_ref: str = "",
        admin_password: str | None = None,
        injected_files: list[dict[str, Any]] | None = None,
        ssh_keys: list[str] | None = None,
        interfaces: list[dict[str, Any]] | None = None,
        volumes: list[dict[str, Any]] | None = None,
        config_drive: dict[str, str] | None = None,
        metadata: dict[str, str] | None = None,
        node: str | None = None,
        power_on: bool = True,
        instance_uuid: str | None = None,
    ) -> dict[str, Any]:
        instance = self._manager.build_and_run_instance(
            context,
            display_name=a_string("display_name", display_name),
            memory_mb=memory_mb,
            vcpus=vcpus,
            root_gb=root_gb,
            image_ref=a_string("image_ref", image_ref),
            admin_password=a_password_or_none(admin_password),
            injected_files=files(injected_files),
            ssh_keys=[] if ssh_keys is None else strings("ssh_keys", ssh_keys),
            interfaces=None if interfaces is None else interfaces_from_list(interfaces),
            volumes=[] if volumes is None else [Volume.from_dict(it) for it in a_list("volumes", volumes)],
            config_drive=None if config_drive is None else _contents(config_drive),
            metadata={} if metadata is None else string_map("metadata", metadata),
            node=a_string_or_none("node", node),
            power_on=a_flag("power_on", power_on),
            instance_uuid=a_string_or_none("instance_uuid", instance_uuid),
        )
        return instance.to_dict()

    @answered
    def terminate_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.terminate_instance(context, a_string("target", target))

    @answered
    def rebuild_instance(
        self,
        context: RequestContext,
        *,
        target: str,
        image_ref: str,
        admin_password: str | None = None,
        injected_files: list[dict[str, Any]] | None = None,
        ssh_keys: list[str] | None = None,
    ) -> None:
        self._manager.rebuild_instance(
            context,
            a_string("target", target),
            image_ref=a_string("image_ref", image_ref),
            admin_password=a_password_or_none(admin_password),
            injected_files=files(injected_files),
            ssh_keys=[] if ssh_keys is None else strings("ssh_keys", ssh_keys),
        )

    @answered
    def rescue_instance(
        self, context: RequestContext, *, target: str, image_ref: str, rescue_password: str | None = None
    ) -> None:
        self._manager.rescue_instance(
            context,
            a_string("target", target),
            image_ref=a_string("image_ref", image_ref),
            rescue_password=a_password_or_none(rescue_password),
        )

    @answered
    def unrescue_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.unrescue_instance(context, a_string("target", target))

    @answered
    def start_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.start_instance(context, a_string("target", target))

    @answered
    def stop_instance(self, context: RequestContext, *, target: str, timeout: float | None = None) -> None:
        self._manager.stop_instance(context, a_string("target", target), timeout=seconds_or_none("timeout", timeout))

    @answered
    def reboot_instance(self, context: RequestContext, *, target: str, reboot_type: str) -> None:
        self._manager.reboot_instance(context, a_string("target", target), a_string("reboot_type", reboot_type))

    @answered
    def pause_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.pause_instance(context, a_string("target", target))

    @answered
    def unpause_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.unpause_instance(context, a_string("target", target))

    @answered
    def suspend_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.suspend_instance(context, a_string("target", target))

    @answered
    def resume_instance(self, context: RequestContext, *, target: str) -> None:
        self._manager.resume_instance(context, a_string("target", target))

    @answered
    def snapshot_instance(
        self, context: RequestContext, *, target: str, name: str, disk_format: str = "vhd"
    ) -> dict[str, Any]:
        return self._manager.snapshot_instance(
            context,
            a_string("target", target),
            name=a_string("name", name),
            disk_format=a_string("disk_format", disk_format),
        )

    @answered
    def resize_instance(
        self,
        context: RequestContext,
        *,
        target: str,
        memory_mb: int,
        vcpus: int,
        root_gb: int,
        node: str | None = None,
    ) -> None:
        self._manager.resize_instance(
            context,
            a_string("target", target),
            memory_mb=memory_mb,
            vcpus=vcpus,
            root_gb=root_gb,
            node=a_string_or_none("node", node),
        )

    @answered
    def migrate_instance(self, context: RequestContext, *, target: str, node: str) -> None:
        self._manager.migrate_instance(context, a_string("target", target), node=a_string("node", node))

    @answered
    def confirm_resize(self, context: RequestContext, *, target: str) -> None:
        self._manager.confirm_resize(context, a_string("target", target))

    @answered
    def revert_resize(self, context: RequestContext, *, target: str) -> None:
        self._manager.revert_resize(context, a_string("target", target))

    @answered
    def live_migrate_instance(self, context: RequestContext, *, target: str, node: str) -> None:
        self._manager.live_migrate_instance(context, a_string("target", target), node=a_string("node", node))


def _contents(untrusted: object) -> dict[str, bytes]:
    """The files of a config drive, whose contents travel in base64."""
    try:
        return {
            path: base64.b64decode(text.encode("ascii"), validate=True)
            for path, text in string_map("config_drive", untrusted).items()
        }
    except (UnicodeEncodeError, binascii.Error):
        raise Refused("bad_argument", "the files of config_drive are base64") from None
