"""What came out? Table, page, figures, export and notebook, from the store's records."""
