"""Trials that break things on purpose: kills, damage, signals, lost hosts, fuzzing."""
