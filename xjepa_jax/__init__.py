"""Cross-sensor joint-embedding predictive architectures for Earth observation, in JAX.

Importing the package is cheap: nothing heavy is loaded until a module that needs it is.
"""

__version__ = "0.1.0"
