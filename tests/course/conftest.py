"""The browser, for external readers that run in a browser."""

from chromium import browser
