"""An index in PostgreSQL with pgvector, for more than one machine.

``store`` keeps it, ``address`` reads where it is, ``connection`` reaches the server and says in a
sentence what went wrong there, ``patterns`` has shell patterns as PostgreSQL reads them,
``questions`` what a search asks, ``banks`` what corrects it. Everything here needs the extra
``postgres``; :mod:`atr_moco_plugin.search.engines` imports it where an address asks for it.
"""
