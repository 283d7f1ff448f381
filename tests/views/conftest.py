"""The browser, for the pages and the widget."""

from chromium import browser
