"""What is in a data set, before anything is trained: copies, silence, languages, leaks.

Here belong the findings and their page. May not import a host, a model or a retriever.
"""
