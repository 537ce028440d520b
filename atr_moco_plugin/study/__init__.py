"""The rank study: one recipe over queue sizes, what it shows and which size it recommends.

In reading order: ``plan`` names the runs, ``runner`` trains what is missing, ``results`` reads
them, ``summary`` takes means and applies the rule, ``verdict`` says it in words, ``table``,
``figures`` and ``page`` show it.
"""
