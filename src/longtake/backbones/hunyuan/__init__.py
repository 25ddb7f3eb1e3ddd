"""HunyuanVideo and the FramePack models made of it."""
