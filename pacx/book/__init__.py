"""From notebooks to pages: how a chapter starts and runs, what may be shown, the build."""
