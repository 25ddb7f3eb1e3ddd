"""HunyuanVideo and FramePack on it: what the official program does with prompts, images and latents."""
