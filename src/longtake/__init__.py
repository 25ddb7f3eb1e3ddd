"""The complete, open FramePack: long videos, made section by section."""
