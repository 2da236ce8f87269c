"""What a customer did, and what the customer tower reads of it."""
