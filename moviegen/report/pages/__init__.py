"""One module a page: its tables, figures and sentences. A module has its notebook's name, without the number.

A notebook calls what its own module holds and nothing else of the report but `open_section`: where the code of a page
changes, only that page is made again.
"""
