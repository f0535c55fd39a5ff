"""What users, stores and authorities are told: facts of the running profile and providers, and texts made of them."""
