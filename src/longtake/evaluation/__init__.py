"""Evaluation: numbers that say what a video lost on its way, each with the motion it was paid with."""
