"""The first-in first-out queues of momentum embeddings that criteria take negatives from.

``buffer`` holds the rows, and :meth:`EmbeddingQueue.enqueue` writes them; ``batch_ids`` refuses ids
that are none of a batch; ``observers`` tells others of changes; ``states`` fits a saved state to a
queue of another size. Imports torch, ``errors`` and ``tensors`` alone.
"""

from atr_moco_plugin.queue.batch_ids import check_ids
from atr_moco_plugin.queue.buffer import EmbeddingQueue
from atr_moco_plugin.queue.observers import ObservedQueue, QueueObserver
from atr_moco_plugin.queue.states import finite_rows

__all__ = ["EmbeddingQueue", "ObservedQueue", "QueueObserver", "check_ids", "finite_rows"]
