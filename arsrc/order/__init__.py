"""Which row comes where: orders of an epoch, and the arithmetic of places in them. NumPy and JAX alike."""
