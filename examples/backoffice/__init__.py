"""A small company's back office on real input: mail, pictures, sales, orders. See README.md."""
