"""Facts: putting, reading, forgetting, and the trail of what was done to them."""
