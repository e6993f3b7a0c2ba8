"""The outside systems, one per file, each behind a port of `release_platform.domain.ports`."""
