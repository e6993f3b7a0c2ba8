"""The rules of a release: pure values and functions. No input or output happens here.

Read the modules in this order to read the product: `spec`, `identity`, `fingerprint`, `features`,
`metrics`, `evidence`, `gates`, `lifecycle`, `ledger`, `policy`, `strategy`,
`windows`, `sequential`, `rollout`, `judge`, `ports`.
"""
