"""Every error that a user can meet.

    LongtakeError
    |- ScheduleError    a schedule name that cannot be read
    |- PlanError        an order, a length or a schedule that do not go together
    |- StoryboardError  prompts, images and times that cannot be read or do not fit the video
    |- InputError       an image, a video, a size or a number that cannot be used
    |- OutputError      a file or folder that cannot be written; what was finished before stays
    |- ModelError       a model that is unknown, incomplete, unsafe or does not fit its config
    |- HardwareError    a machine that has not what a model needs
    |- RunError         a run folder that cannot be used
    |- NumericsError    latents that stopped being finite numbers
    `- ConfigError      a training or evaluation config that cannot be used

The message says what was given, where it is wrong, and what would do. The command line prints it and exits with 2.
"""


class LongtakeError(Exception):
    """Something that the user can mend; the message says how."""


class ScheduleError(LongtakeError):
    """A schedule name that cannot be read; the message shows the place with a caret."""


class PlanError(LongtakeError):
    """An order, a length or a schedule that do not go together."""


class StoryboardError(LongtakeError):
    """Prompts, images and times that cannot be read or do not fit the video."""


class InputError(LongtakeError):
    """An image, a video, a size or a number that cannot be used."""


class OutputError(LongtakeError):
    """A file or folder that cannot be written. What was finished before stays."""


class ModelError(LongtakeError):
    """A model that is unknown, incomplete, unsafe, or does not fit its config."""


class HardwareError(LongtakeError):
    """A machine that has not what a model needs; the message names the profile that would do, or what is lacking."""


class RunError(LongtakeError):
    """A run folder that cannot be used."""


class NumericsError(LongtakeError):
    """Latents that stopped being finite numbers; the message names the section."""


class ConfigError(LongtakeError):
    """A training or evaluation config that cannot be used."""
