"""The browser demo: few-shot classification of pictures, with the prediction of each flow.

`session` holds the classes of one visitor; `pictures`, `class_folders` and `archive` read uploads;
`view` and `prediction_cards` write HTML. `components` and `handlers` are the parts of the `page` in
Gradio, `server` serves it, and `protection` refuses requests of other sites.
"""
