"""Networks that predict velocity, with their codecs and prompt encoders. The only package that knows diffusers."""
