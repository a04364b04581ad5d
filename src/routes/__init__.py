"""The doors: each translates between a protocol and the processor, nothing else."""
