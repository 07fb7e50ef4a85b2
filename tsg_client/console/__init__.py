"""The console: pages for a browser, and the proxy that serves them and signs their requests."""
