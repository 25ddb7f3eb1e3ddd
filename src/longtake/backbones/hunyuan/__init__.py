"""HunyuanVideo, and the FramePack models made of it: network, codec, prompts and images."""
