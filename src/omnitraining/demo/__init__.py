"""The browser demo: few-shot classification of pictures, with the prediction of each flow.

`session` holds the classes of one visitor, `view` writes them as HTML, `page` is the page in
Gradio, `server` serves it, and `protection` refuses requests of other sites.
"""
