"""The hands: everything that performs I/O."""
