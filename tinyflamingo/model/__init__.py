"""The model of the chapter: vision encoder, resampler, gated blocks, language model, and Flamingo, the whole."""
