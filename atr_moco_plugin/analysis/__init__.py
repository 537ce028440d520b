"""The geometry of embeddings: spectra, axes that two modalities share, dimension, hubs.

Works on any matrix of embeddings. Here belong the measures, the reading of embedding files and the
page. May not import a host, a retriever or a data set.
"""
