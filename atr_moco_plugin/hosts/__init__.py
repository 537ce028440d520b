"""Thin adapters to other training stacks. They depend on the core, never the other way round."""
