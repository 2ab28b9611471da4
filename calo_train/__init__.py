"""calo-train: generative models of calorimeter showers, trained, sampled and judged."""

__version__ = "0.1.0"
