"""Serves the Production versions of models over HTTP, from the registry only, and stands alone when that is down.

Read the modules in this order: `app`, `doors`, `answering`, `engine`, `models`, `registry`, `watch`, `routes`; then
`edge` and `connection`, which stand before them.
"""
