"""The first application. tasks.py is all of it; ``python -m examples.first_app`` tries it."""
