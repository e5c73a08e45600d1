"""The arcade: Atari games with exact truth, a controlled benchmark, and the recipe of the bundled model."""
