"""Runs of agents, their events, and the evidence that searches gave them."""
