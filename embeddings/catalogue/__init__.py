"""What can be recommended and where: master data, the context of a request, and the rows that a context allows."""
