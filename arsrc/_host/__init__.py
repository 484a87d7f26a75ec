"""What is impure: files, readers, threads, caches, and the one registry of open data sets.

Nothing here touches JAX: these functions run inside callbacks, where a call into JAX can deadlock.
"""
