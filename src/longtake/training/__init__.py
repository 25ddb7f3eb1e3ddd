"""Training: codecs, plain video models, and next-frame-section models made of them."""

from longtake.training.loop import Logged, Saved, Stage, TrainingEvent, train
from longtake.training.prepare import prepare

__all__ = ["Logged", "Saved", "Stage", "TrainingEvent", "prepare", "train"]
