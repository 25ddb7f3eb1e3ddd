"""HunyuanVideo, the network that FramePack was first trained on, and its codec."""
