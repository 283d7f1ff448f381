"""The studio: a web app on this machine that teaches attention. `app.create(settings)` builds it, `serve` runs it."""
