"""Training: the three stages, the optimisers, the workers, and runs that continue after a kill."""
