"""What people look at: figures, the notebook's summary, the HTML report. Nothing is ever shown."""
