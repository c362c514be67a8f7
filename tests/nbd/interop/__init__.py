"""Other projects' tests of servers, built and run against ours: `make interop`."""
