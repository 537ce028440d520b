"""Fine-tuning on one's own sounds, whatever the loop: where it starts from, and the sizes chosen.

The loops are in ``hosts``.
"""
