"""The rank study: one recipe over queue sizes, what it shows and which size it recommends.

:mod:`plan` names the runs, :mod:`runner` trains what is missing, :mod:`results` reads them,
:mod:`summary` takes means and recommends, :mod:`table` and :mod:`figures` show it.
"""
