"""``zeroskip report``: what a run cost and why, as one HTML page and pictures.

``record.py`` reads the reports of `make sim`, ``figures.py`` draws, ``page.py`` puts the page together with
``page.html.j2``, ``command.py`` is the command.
"""
