"""Captions to token ids: tokenizers, and the checks that one fits its encoder and the captions.

May not import a criterion, an evaluation or a host.
"""
