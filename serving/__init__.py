"""Serves the Production versions of models over HTTP, from the registry only, and stands alone when that is down.

Read the modules in this order: `app`, `models`, `registry`, `watch`, `engine`, `routes`.
"""
