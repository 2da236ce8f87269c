"""The service: a recommend call over HTTP, from the bytes of the request to those of the answer."""
