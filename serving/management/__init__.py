"""The management API: master data over HTTP, in a process of its own that loads no model."""
