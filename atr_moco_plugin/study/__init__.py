"""The rank study: one recipe over queue sizes, what it shows and which size it recommends.

In reading order: ``plan`` names the runs, ``runner`` trains the missing ones, ``results`` reads
them, ``summary`` takes means and applies the rule, ``findings`` are its records, ``verdict`` puts
the result into words, ``tables``, ``figures`` and ``page`` show it. May not import data, a
host or a recipe.
"""
