"""Numbers of a video that need no trained network. Videos are uint8 images "T H W 3"."""

from longtake.evaluation.metrics.motion import background_flow, camera_flow, displacement
from longtake.media.statistics import color_distance, color_statistics, sharpness

__all__ = ["background_flow", "camera_flow", "color_distance", "color_statistics", "displacement", "sharpness"]
