"""Bringing a version into service at a target: the targets, and the rollout that is the same for all."""
