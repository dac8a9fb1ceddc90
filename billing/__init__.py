"""What it costs: price books, contracts, rating, invoices."""
