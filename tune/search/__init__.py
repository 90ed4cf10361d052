"""Searches: trials that Ray Tune stops, draws or changes while they train."""
