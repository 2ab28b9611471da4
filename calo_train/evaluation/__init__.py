"""Showers judged by showers: observables, distances and classifiers beside their floors."""
