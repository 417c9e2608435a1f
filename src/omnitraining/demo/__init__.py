"""The browser demo: teach a few classes, ask about a picture, see what each flow thinks of it.

`session` is what one visitor has taught, `view` writes it as HTML, `page` lays it out in Gradio.
"""
