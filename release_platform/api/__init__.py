"""The operators' API: promotion requests, approvals, rollbacks and what was, for named holders of keys."""
