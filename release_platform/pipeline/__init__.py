"""From raw data to an evaluated model: plain functions on data frames and estimators. No Dagster, no registry.

Read `sources` (and the doors `files`, `database` behind it), `casting`, `contract` and `ingest` for the raw data, then
`features` for what a model is fitted on.
"""
