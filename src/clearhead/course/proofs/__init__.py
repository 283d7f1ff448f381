"""Prove items: run their programs in the sandbox, compute the answers, keep receipts."""
