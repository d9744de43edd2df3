"""`xenward server …`: everything that can be done to an instance."""

from . import devices, guest, images, life, moving, networks, power, questions

COMMANDS = {
    **life.COMMANDS,
    **power.COMMANDS,
    **guest.COMMANDS,
    **devices.COMMANDS,
    **networks.COMMANDS,
    **images.COMMANDS,
    **moving.COMMANDS,
    **questions.COMMANDS,
}
