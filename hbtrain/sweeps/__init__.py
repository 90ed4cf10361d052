"""Sweeps: many runs of one recipe that differ in a few keys, side by side on a Ray cluster, compared at the end.

All combinations of a grid, or what a search draws (Optuna, ASHA, population based training), under Ray Tune.
"""
