"""The online model: two towers (encoder, pooling, projection) and a matching head.

Encoders and heads are loaded by their entry-point names and never imported here.
"""

from atr_moco_plugin.model.retrieval_model import RetrievalModel, build_model, model_config

__all__ = ["RetrievalModel", "build_model", "model_config"]
