"""What came out? Read from the store after it ran: table, page, figures, export, notebook."""
