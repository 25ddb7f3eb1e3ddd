"""Helios: Wan trained on packed history, and sampled at once, from coarse to fine, or in few steps."""
