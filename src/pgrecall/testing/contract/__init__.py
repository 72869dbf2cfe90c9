"""The contract that every store keeps, as test classes to subclass."""
