"""Are two models really different? Paired tests on the same queries, and a page of what changed.

Here belong the reading of runs, evaluations and TREC files, and the tests. May not import a host or
a recipe.
"""
