"""Trained networks that tell showers apart: two classes, many generators, and what they saw."""
