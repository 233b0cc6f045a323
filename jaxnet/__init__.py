"""The sigmoid network of a deep-learning lecture, in JAX."""
