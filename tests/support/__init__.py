"""What several suites share: small worlds, programs, fake stores, the test store and the sandbox."""
