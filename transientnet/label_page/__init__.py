"""The labelling page: a local web application in which people make the table that `adapt` reads.

`candidates` reads the stamps and what the model thinks of them, `queue` decides what to ask next,
`journal` keeps every answer and writes the table, `session` is the work of all labellers on them,
`app` speaks HTTP, `training` runs ``transientnet adapt`` from the page.
"""
