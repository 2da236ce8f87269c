"""Customer histories and sessions, and the input that the customer tower reads of them."""
