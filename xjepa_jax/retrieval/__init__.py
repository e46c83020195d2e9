"""Descriptors -> answers: rankings, metrics, and their worth against chance and baselines."""
