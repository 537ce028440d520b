"""Captions to token ids: tokenizers, and the checks that one fits its encoder and the captions.

May import ``data``, ``encoders`` and ``errors``; never a criterion, an evaluation or a host.
"""
