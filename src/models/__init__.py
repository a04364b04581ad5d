"""The core: pure values and decisions. Nothing here performs I/O, awaits or reads a clock."""
