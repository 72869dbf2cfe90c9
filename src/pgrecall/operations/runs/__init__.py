"""Agent runs, their events, and the evidence that searches gave them."""
