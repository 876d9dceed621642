"""Questions about the model: ablations, the size of a language model, how copying comes about, where it looks."""
